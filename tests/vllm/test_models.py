"""Which folders and settings are served, and which are refused, when and how."""

import json
from types import SimpleNamespace

import pytest
from engine import engine, greedy, random_prompts, transformers_greedy
from models import load, save_dense, save_pruned
from vllm.config import CUDAGraphMode
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from amber_ext import AmberConfig
from amber_ext.integrations.transformers import AmberQuantConfig
from amber_ext.integrations.vllm.config import check_engine
from amber_ext.integrations.vllm.runners import follow_runner

LENGTHS = (5, 33, 100, 1)
TARGETS = ("qkv_proj", "gate_up_proj", "down_proj")


def test_projections_that_are_saved_merged(tmp_path):
    """Phi-3's weights of q, k and v are one in the checkpoint, and have one set of scores."""
    config = AmberConfig(pattern="8:16", targets=TARGETS)
    folder = save_pruned(save_dense(tmp_path / "dense", "phi3"), tmp_path / "pruned", config)
    prompts = random_prompts(LENGTHS)
    with engine(folder) as llm:
        assert greedy(llm, prompts) == transformers_greedy(load(folder), prompts)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_families(tmp_path, kind):
    folder = save_pruned(
        save_dense(tmp_path / "dense", kind), tmp_path / "pruned", AmberConfig(pattern="2:4")
    )
    prompts = random_prompts(LENGTHS)
    with engine(folder) as llm:
        assert greedy(llm, prompts) == transformers_greedy(load(folder), prompts)


def test_attention_of_a_mixture_of_experts(tmp_path):
    config = AmberConfig(pattern="2:4", targets=("q_proj",))
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 32}
    folder = save_pruned(save_dense(tmp_path / "dense", "qwen3_moe", **sizes), tmp_path / "pruned", config)
    prompts = random_prompts(LENGTHS)
    with engine(folder) as llm:
        assert greedy(llm, prompts) == transformers_greedy(load(folder), prompts)


def test_dense_folders(tmp_path):
    """Pruned on the way in: with the default configuration, and with one of one's own."""
    folder, prompts = save_dense(tmp_path / "dense"), random_prompts(LENGTHS)
    with engine(folder, quantization="amber_ext") as llm:
        assert greedy(llm, prompts) == transformers_greedy(load(folder, AmberConfig()), prompts)
    scores = {"q_proj": "magnitude", "down_proj": "wanda"}
    config = AmberConfig(pattern="2:4", rescale="variance", projection_scores=scores)
    override = {"quantization_config": AmberQuantConfig(config).to_dict()}
    with engine(folder, hf_overrides=override) as llm:
        assert greedy(llm, prompts) == transformers_greedy(load(folder, config), prompts)


def refused(match, folder, **options):
    with pytest.raises(Exception, match=match), engine(folder, **options):
        pass


def test_unknown_kinds_are_refused(tmp_path):
    override = {"quantization_config": {"quant_method": "amber_ext", "kind": "frozen"}}
    refused("kind 'frozen' is not allowed", save_dense(tmp_path / "dense"), hf_overrides=override)


@pytest.mark.parametrize(
    "mode, ubatching, shares, match",
    [
        (CUDAGraphMode.FULL, False, False, "cudagraph_mode: FULL is not allowed"),
        (CUDAGraphMode.FULL_AND_PIECEWISE, True, False, "enable_dbo: True is not allowed"),
        (CUDAGraphMode.NONE, False, True, "kv_sharing_fast_prefill: True is not allowed"),
    ],
)
def test_settings_of_gpus_are_refused(mode, ubatching, shares, match):
    """vLLM turns them off on a CPU."""
    config = SimpleNamespace(
        quant_config=SimpleNamespace(layers=None),
        compilation_config=SimpleNamespace(cudagraph_mode=mode),
        parallel_config=SimpleNamespace(use_ubatching=ubatching, tensor_parallel_size=1),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=shares),
    )
    with pytest.raises(ValueError, match=match):
        check_engine(config)


def test_other_model_runners_are_refused(monkeypatch):
    monkeypatch.delattr(GPUModelRunner, "_model_forward")
    with pytest.raises(
        RuntimeError, match="GPUModelRunner has no _model_forward\\(positions\\); amber_ext is tested"
    ):
        follow_runner(SimpleNamespace(use_v2_model_runner=False))


def test_experts_are_refused_before_a_worker_starts(tmp_path):
    folder = save_dense(tmp_path / "dense")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(
            config | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8}
        )
    )
    refused("targets: down_proj, gate_proj are in this model's experts", folder, quantization="amber_ext")


@pytest.mark.parametrize(
    "config, match",
    [
        (AmberConfig(pattern="16:32"), "tensor_parallel_size: 2 gives down_proj K = 80 channels a process"),
        (AmberConfig(rescale="variance"), "rescale: 'variance' is not allowed for down_proj"),
    ],
)
def test_slices_of_tokens_are_refused(tmp_path, monkeypatch, config, match, capfd):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    folder = save_pruned(save_dense(tmp_path / "dense", intermediate_size=160), tmp_path / "pruned", config)
    with pytest.raises(Exception), engine(folder, tensor_parallel_size=2):  # noqa: B017, it names a worker alone
        pass
    assert match in "".join(capfd.readouterr())
