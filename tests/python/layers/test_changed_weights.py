"""Scores and copies follow a weight that changes after its layer was pruned."""

import copy
import io

import pytest
import torch

import amber_ext
from amber_ext import AmberConfig, AmberLinear, refresh_, sparsify_
from amber_ext.layers import sharding
from amber_ext.ops import derived

X = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))


def pruned_layer(pattern="2:4", score="wanda"):
    torch.manual_seed(1)
    return AmberLinear.from_linear(torch.nn.Linear(64, 16), pattern, score)


def new_weight():
    """Its columns are of very different lengths, so that other channels survive."""
    return torch.randn(16, 64) * torch.rand(64) * 3


def follows(layer, x=X, call=None):
    """Whether the layer computes what one that is made from its weight now does."""
    fresh = torch.nn.Linear(64, 16)
    fresh.weight = torch.nn.Parameter(layer.weight.detach().clone().contiguous())
    fresh.bias = layer.bias
    with torch.no_grad():
        want = AmberLinear.from_linear(fresh, layer.pattern, layer.score)(x)
        got = (layer if call is None else call)(x)
    return torch.allclose(got, want, atol=1e-4)


def edit_in_place(layer):
    with torch.no_grad():
        layer.weight.copy_(new_weight())


def edit_in_inference_mode(layer):
    with torch.inference_mode():
        layer.weight[:, ::3] *= 10


def assign(layer):
    layer.weight = torch.nn.Parameter(new_weight())


def assign_where_the_old_one_was(layer):
    del layer.weight
    layer.weight = torch.nn.Parameter(new_weight())


def assign_data(layer):
    layer.weight.data = new_weight()


def optimize(layer):
    layer.weight.grad = new_weight()
    torch.optim.SGD([layer.weight], lr=1.0).step()


def load_state(layer):
    layer.load_state_dict({"weight": new_weight(), "bias": torch.zeros(16)})


def load_state_by_assigning(layer):
    layer.load_state_dict({"weight": new_weight(), "bias": torch.zeros(16)}, assign=True)


def merge_as_peft_does(layer):
    layer.weight.data += new_weight()
    torch.nn.Sequential().add_module("q_proj", layer)


def normalize(layer):
    torch.nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original1.copy_(new_weight())


CHANGES = [
    edit_in_place,
    edit_in_inference_mode,
    assign,
    assign_where_the_old_one_was,
    assign_data,
    optimize,
    load_state,
    load_state_by_assigning,
    merge_as_peft_does,
    normalize,
]


@pytest.fixture
def computed(monkeypatch):
    """The scores that were computed, one entry each."""
    log = []

    def count(module, name):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: log.append(name) or original(*arguments))

    count(sharding, "channel_scale")
    count(derived, "selection_scale")
    return log


@pytest.mark.parametrize("change", CHANGES)
def test_scores_follow(change, computed):
    layer = pruned_layer()
    memory = layer.channel_scale.data_ptr()
    assert follows(layer)
    change(layer)
    assert follows(layer)
    assert layer.channel_scale.data_ptr() == memory  # a CUDA graph reads them there
    computed.clear()
    with torch.no_grad():
        layer(X)
    assert len(computed) == (1 if change is normalize else 0)  # that weight is a new one in every call


@pytest.mark.parametrize("change", CHANGES)
def test_compiled_layers_follow(change):
    layer = pruned_layer()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert follows(layer, call=compiled)
    change(layer)
    assert follows(layer, call=compiled)


def test_one_compiled_graph_serves_changing_weights():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    layer, counter = pruned_layer(), CompileCounterWithBackend("inductor")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for length in (40, 3, 17):
        edit_in_place(layer)
        assert follows(layer, X[:length].clone(), compiled)
    assert counter.frame_count == 1


def test_a_cast_changes_the_scores_and_a_move_does_not(computed):
    layer = pruned_layer()
    layer.to(torch.bfloat16)
    with torch.no_grad():
        layer(X.bfloat16())
    assert torch.equal(layer.channel_scale, amber_ext.channel_scale(layer.weight, "wanda"))
    computed.clear()
    layer.to("cpu"), layer.share_memory(), layer.requires_grad_(False), layer.eval()
    with torch.no_grad():
        layer(X.bfloat16())
    assert computed == []


def test_copies_of_a_layer_compute_nothing_anew(computed):
    layer = pruned_layer()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    computed.clear()
    for twin in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        with torch.no_grad():
            assert torch.equal(twin(X), layer(X))
        assert computed == []
        edit_in_place(twin)
        assert follows(twin)
        computed.clear()
    edit_in_place(layer)  # known to be stale, and so are its copies
    assert follows(copy.deepcopy(layer))


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        layer = pruned_layer()
    assert follows(layer)
    assign(layer)
    assert follows(layer)


def test_what_nothing_shows_needs_refresh():
    layer = pruned_layer()
    layer.weight.data.copy_(new_weight())
    assert not follows(layer)  # as the docs say
    memory = layer.channel_scale.data_ptr()
    refresh_(layer)
    assert follows(layer) and layer.channel_scale.data_ptr() == memory


def test_a_changed_weight_without_scores_is_refused():
    layer = pruned_layer()
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match="weight: it contains NaN or Inf"):
            layer(X)
        with pytest.raises(ValueError, match="^layer '0': weight: it contains NaN or Inf"):
            refresh_(torch.nn.Sequential(layer))
        with amber_ext.decode():
            assert layer(X).isnan().any()


def test_a_shard_that_changed_is_refused():
    layer = pruned_layer()
    layer.weight = torch.nn.Parameter(new_weight()[:, :32])
    with pytest.raises(
        RuntimeError, match=r"weight: the shard .* call amber_ext.refresh_\(model\) in every process"
    ):
        layer(X[:, :32])


def test_offloaded_layers_compute_their_scores_once(computed):
    accelerate = pytest.importorskip(
        "accelerate", reason="accelerate is not installed (pip install accelerate)"
    )
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Linear(16, 4))
    sparsify_(model, AmberConfig(pattern="2:4", score="wanda", targets=("0",)))
    with torch.no_grad():
        want = model(X)
    for known in (True, False):
        if not known:  # as transformers does where it loads weights that stay on a disk
            model[0].channel_scale = None
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        assert model[0].weight.is_meta
        computed.clear()
        with torch.no_grad():
            assert all(torch.equal(model(X), want) for _ in range(3))
        assert len(computed) == (0 if known else 1)
        accelerate.hooks.remove_hook_from_submodules(model)
