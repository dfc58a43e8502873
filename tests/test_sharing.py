"""Sharing results among methods: nothing is computed twice, and nothing changes."""

import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, adapt, make_method, sharing
from scclip_core.baselines import METHODS
from scclip_core.by_rows import SCCLIPByRows
from scclip_core.sharing import ResultCache, shareable, shared_results
from scclip_lab.datasets.scenes import TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.ch05_ablation import ablation_configs
from scclip_lab.studies.shared import no_module, segmenters

pytestmark = pytest.mark.usefixtures("without_gradients")
LAST = "blocks.10.hook_resid_post"


@pytest.fixture(scope="module")
def images(mini):
    return stack_images(mini, [example_scene()])


@pytest.fixture
def ran():
    """A shareable function, and what it was called with."""
    calls = []

    @shareable
    def plus(tokens, number=0.0):
        calls.append(number)
        return tokens + number

    return plus, calls


def is_matrix(kept):
    """Whether a result is [.., N, N]."""
    return kept.ndim == 3 and kept.shape[-1] == kept.shape[-2]


def count_calls(monkeypatch, module):
    """How often the first layer norm of every block runs, from here on."""
    counted = []
    for block in module.blocks:
        run = block.ln_1.forward
        monkeypatch.setattr(block.ln_1, "forward", lambda x, run=run: counted.append(1) or run(x))
    return counted


def test_blocks_run_once_for_the_same_images_and_no_feature_changes(mini, images, monkeypatch):
    methods = segmenters(mini, {"none": no_module(), "all": SCCLIPConfig()})
    alone = [method.features(images) for method in methods.values()]
    counted = count_calls(monkeypatch, mini)
    with shared_results():
        shared = [method.features(images) for method in methods.values()]
    # all blocks but the last, whose projections read three different inputs
    assert len(counted) == mini.depth - 1 + 3
    assert all(map(torch.equal, shared, alone))


@pytest.mark.parametrize("side", [224, 336])  # at 336 pixels, positions are interpolated
def test_every_method_and_configuration_gives_what_it_gives_alone(mini, side):
    images = stack_images(mini, [evaluation_scene(TEST, 7, i, side=side) for i in range(2)])
    methods = [make_method(name, mini) for name in METHODS]
    methods += [SCCLIPByRows(mini), *segmenters(mini, ablation_configs()).values()]
    alone = [method.features(images) for method in methods]
    with shared_results():
        shared = [method.features(images) for method in methods]
        again = [method.features(images) for method in methods]
    assert all(map(torch.equal, alone, shared))
    assert all(map(torch.equal, alone, again))


def test_what_a_hook_changes_stays_with_its_run(mini, images):
    method, hooks = SCCLIP(mini), {LAST: lambda tokens: tokens.flip(1)}
    plain, changed = method.features(images), method.run_with_hooks(images, hooks)
    with shared_results():
        assert torch.equal(method.features(images), plain)
        assert torch.equal(method.run_with_hooks(images, hooks), changed)
        assert torch.equal(method.features(images), plain)
    assert not torch.equal(changed, plain)


def test_a_run_with_a_hook_shares_what_comes_before_it(mini, images, monkeypatch):
    with shared_results():
        make_method("values", mini).features(images)
        counted = count_calls(monkeypatch, mini)
        hooks = {"blocks.8.hook_resid_post": lambda tokens: tokens.flip(1)}
        make_method("values", mini).run_with_hooks(images, hooks)
    assert len(counted) == 3  # blocks 9 and 10, and the last one's values


def test_results_end_with_their_context_and_can_go_on_in_another(ran):
    plus, calls = ran
    cache, tokens = ResultCache(), torch.zeros(2)
    with shared_results(cache):
        first = plus(tokens, 1.0)
        with shared_results():  # within another context, results are those of the outer one
            assert plus(tokens, 1.0) is first
    assert plus(tokens, 1.0) is not first
    with shared_results(cache):
        assert plus(tokens, 1.0) is first
    with shared_results():
        assert plus(tokens, 1.0) is not first
    assert calls == [1.0] * 3


def test_only_the_same_memory_read_in_the_same_way_is_the_same(ran):
    plus, calls = ran
    tokens = torch.zeros(2, 2)
    with shared_results():
        plus(tokens, 1.0)
        plus(tokens.view(2, 2), 1.0)  # another name for it
        assert len(calls) == 1
        plus(tokens, number=1.0)
        plus(tokens, 2.0)
        plus(tokens.T, 1.0)
        plus(tokens[:1], 1.0)
        plus(tokens.clone(), 1.0)
        plus(tokens, 1)  # a whole number: the result may have another type
        tokens += 1
        assert torch.equal(plus(tokens, 1.0), tokens + 1)
    assert len(calls) == 8


def test_memory_that_was_freed_is_not_taken_for_the_same(ran):
    plus, _ = ran
    with shared_results():
        for number in range(20):
            given = torch.full((1000,), float(number))
            assert plus(given, 1.0)[0] == number + 1
            del given


@pytest.mark.parametrize(
    "call",
    [
        lambda total, layers: total(layers),
        lambda total, layers: total(layers=layers),
        lambda total, layers: total((layers,)),
    ],
    ids=["by position", "by keyword", "within a tuple"],
)
def test_a_list_that_is_changed_later_is_another_list(call):
    @shareable
    def total(layers):
        return sum(layers[0] if isinstance(layers, tuple) else layers)

    layers = [torch.ones(1000), torch.ones(1000)]
    with shared_results():
        assert call(total, layers)[0] == 2
        layers.clear()
        for number in range(20):  # in the memory that was freed
            layers[:] = [torch.full((1000,), float(number)) for _ in range(2)]
            assert call(total, layers)[0] == 2 * number


@pytest.mark.parametrize("detector", ["lof", "landmarks", "grid"])
def test_stages_before_the_first_difference_are_shared(mini, images, detector):
    config, cache = SCCLIPConfig(detector=detector), ResultCache()
    with shared_results(cache):
        SCCLIP(mini, config).features(images)
        before = len(cache.results)
        SCCLIP(mini, config).features(images)
        # the sum with the class token is not shareable, so what reads it is computed again
        assert len(cache.results) - before == 2


def test_a_compiled_graph_shares_nothing_and_gives_the_same():
    @shareable
    def double(tokens):
        return 2 * tokens

    tokens = torch.ones(3)
    with shared_results():
        double(tokens)
        compiled = torch.compile(double, fullgraph=True, backend="eager")
        assert torch.equal(compiled(tokens), 2 * tokens)


def test_nothing_is_shared_where_gradients_are_enabled(ran):
    plus, calls = ran
    tokens = torch.zeros(2, requires_grad=True)
    with shared_results(), torch.enable_grad():
        plus(tokens.detach(), 1.0)
        for _ in range(2):
            plus(tokens, 1.0).sum().backward()
    assert len(calls) == 3 and tokens.grad.tolist() == [2, 2]


def test_no_more_is_kept_than_there_is_room_for(ran):
    plus, calls = ran
    tokens, cache = torch.zeros(256), ResultCache(max_bytes=3072)  # 1,024 bytes each
    with shared_results(cache):
        for number in (1.0, 2.0, 3.0, 3.0, 1.0, 2.0):
            assert torch.equal(plus(tokens, number), tokens + number)
    assert calls == [1.0, 2.0, 3.0, 3.0]
    assert cache.size == 3072 and len(cache.results) == 2  # the argument counts once


def test_rows_of_large_matrices_are_not_kept(mini, images):
    cache, method = ResultCache(), SCCLIPByRows(mini, rows_at_once=16)
    with shared_results(cache):
        alone = method.features(images)
        method.run_with_cache(images, "blocks.11.attn.hook_pattern")
    kept = [result for _, result in cache.results.values()]
    assert not any(map(is_matrix, kept))
    with shared_results():
        SCCLIP(mini).features(images)
        assert torch.equal(method.features(images), alone)


def test_candidates_share_the_blocks_however_little_room_there_is(mini, images, monkeypatch):
    monkeypatch.setattr(adapt, "MAX_BYTES", 0)
    caches = []

    def new_cache(max_bytes):
        caches.append(ResultCache(max_bytes))
        return caches[-1]

    monkeypatch.setattr(adapt, "ResultCache", new_cache)
    configs = dict(list(adapt.candidates(SCCLIPConfig()).items())[:4])
    wanted = {name: SCCLIP(mini, config).features(images) for name, config in configs.items()}
    counted = []
    run = mini.blocks[0].mlp.forward
    monkeypatch.setattr(mini.blocks[0].mlp, "forward", lambda x: counted.append(1) or run(x))
    text = SCCLIP(mini).embed_classes(WORDS)[1]
    for name, _, logits in adapt.read_evidence(mini, images, WORDS, configs):
        assert torch.allclose(logits, wanted[name] @ text.T, atol=1e-5)
        assert sharing._CURRENT.get() is None  # whoever reads them is outside the context
    assert len(counted) == 3  # one for each view
    assert not [kept for cache in caches for _, kept in cache.results.values() if is_matrix(kept)]


def test_a_context_ends_with_an_error():
    with pytest.raises(RuntimeError), shared_results():
        raise RuntimeError
    assert sharing._CURRENT.get() is None


def test_tensors_of_shapes_alone_are_told_apart(ran):
    plus, calls = ran
    first, second = (torch.empty(2, device="meta") for _ in range(2))
    with shared_results():
        assert plus(first, 1.0) is plus(first, 1.0)
        assert plus(second, 1.0) is not plus(first, 1.0)
    assert len(calls) == 2
