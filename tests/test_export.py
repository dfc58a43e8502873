"""The forward pass as one graph: torch.export agrees with the eager run, for every method."""

import pytest
import torch

from scclip_core import METHODS, make_method


@pytest.mark.parametrize("name", METHODS)
def test_an_exported_model_agrees_with_the_eager_one(model, images, name):
    segmenter = make_method(name, model)
    exported = torch.export.export(segmenter, (images,)).module()
    for batch in (images, images.flip(0)):
        assert torch.allclose(exported(batch), segmenter(batch), atol=1e-4)
