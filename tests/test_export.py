"""The forward pass as one graph: torch.export agrees with the eager run, for every preset."""

import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig

PRESETS = {"seed": SCCLIPConfig(), "reference": SCCLIPConfig.reference(), "vanilla": SCCLIPConfig.vanilla()}


class Features(torch.nn.Module):
    def __init__(self, segmenter):
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images):
        return self.segmenter.features(images)


@pytest.mark.parametrize("name", PRESETS)
def test_an_exported_model_agrees_with_the_eager_one(model, images, name):
    eager = Features(SCCLIP(model, PRESETS[name]))
    exported = torch.export.export(eager, (images,)).module()
    assert torch.allclose(exported(images), eager(images), atol=1e-4)
    assert torch.allclose(exported(images.flip(0)), eager(images.flip(0)), atol=1e-4)
