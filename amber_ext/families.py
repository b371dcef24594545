"""What is known of model families by name: data alone. A family is added here and nowhere else.

Any model with ``nn.Linear`` layers can be pruned. A family needs an entry for what goes beyond that: skip lists, norms
that smoothing factors can be folded into, fused experts, weights that are read past their layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """What a decoder layer looks like in which smoothing factors may be folded into norms.

    Attributes:
        children: the names of its modules; no others may be there.
        readers: a norm's name to the module that reads its output, and the linears in there that alone do.
        other_parts: what else those modules may contain.
    """

    children: frozenset[str]
    readers: Mapping[str, tuple[str, frozenset[str]]]
    other_parts: frozenset[str]


LLAMA_LAYER = DecoderLayer(
    children=frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}),
    readers={
        "input_layernorm": ("self_attn", frozenset({"q_proj", "k_proj", "v_proj"})),
        "post_attention_layernorm": ("mlp", frozenset({"gate_proj", "up_proj"})),
    },
    other_parts=frozenset({"o_proj", "q_norm", "k_norm", "down_proj", "act_fn", "rotary_emb"}),
)


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: as people call it.
        decoder_layer: None where smoothing factors are always applied on the fly.
        experts: transformers' class of fused experts whose forward is `AmberExperts.gated_experts`: gate_up_proj
            [E, 2I, H] holds gate over up, down_proj [E, H, I], no biases. None where there is none.
        mlp: transformers' class of gated MLPs whose forward is ``down_proj(act_fn(gate_proj(x)) * up_proj(x))``. None where
            it is not fused.
        presets: name to the layers whose q_proj and gate_proj stay dense (arXiv 2508.02128, section 4).
        vllm: what of it the tests of the vLLM plugin serve.
    """

    name: str
    decoder_layer: DecoderLayer | None = None
    experts: str | None = None
    presets: Mapping[str, tuple[int, ...]] | None = None
    vllm: str = "not tested"
    mlp: str | None = None


ALL_OF_IT = "yes, on a CPU"


FAMILIES = (
    Family(
        "Llama",
        LLAMA_LAYER,
        presets={"llama-3.1-8b": (19, 21, 28, 30, 31)},
        vllm=ALL_OF_IT,
        mlp="LlamaMLP",
    ),
    Family("Mistral", LLAMA_LAYER, vllm=ALL_OF_IT, mlp="MistralMLP"),
    Family("Qwen2", LLAMA_LAYER, presets={"qwen2-7b": (0, 6, 23, 26, 27)}, vllm=ALL_OF_IT, mlp="Qwen2MLP"),
    Family("Qwen3", LLAMA_LAYER, vllm=ALL_OF_IT, mlp="Qwen3MLP"),
    Family(
        "Qwen3-MoE",
        LLAMA_LAYER,
        "Qwen3MoeExperts",
        {"qwen3-30b-a3b": (41, 46, 47)},
        vllm="attention, on a CPU; experts are refused",
    ),
)

# Linears whose weight transformers' own code multiplies with, past the layer (``self.dt_proj.weight @ x``): the class that
# does so, and what it calls them. Pruning such a layer would change nothing, or change it only in some of the model's calls.
# Known by name, not seen by running the model: `sparsify_` has no tokens, often no weights yet (a model that is being
# loaded is on the meta device), and must decide the same before saving and after loading. A test reads transformers' source
# for more of them.
READ_PAST_LAYER: Mapping[str, frozenset[str]] = {
    "FalconMambaMixer": frozenset({"dt_proj"}),
    "JambaMambaMixer": frozenset({"dt_proj"}),
    "MambaMixer": frozenset({"dt_proj"}),
    "LongcatFlashTopkRouter": frozenset({"classifier"}),
    "LSHSelfAttention": frozenset({"query_key", "value"}),
    "DisentangledSelfAttention": frozenset({"in_proj"}),
    "MobileBertLMPredictionHead": frozenset({"dense", "decoder"}),
    "NeoMMEForMaskedLM": frozenset({"unembedding_projection"}),
    "LayoutLMv2Encoder": frozenset({"rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias"}),
    "WavLMAttention": frozenset({"q_proj", "k_proj", "v_proj", "out_proj"}),
    "TDNNLayer": frozenset({"kernel"}),
    "DetrMHAttentionMap": frozenset({"k_proj"}),
    "ConditionalDetrMHAttentionMap": frozenset({"k_proj"}),
    "DabDetrMHAttentionMap": frozenset({"k_linear"}),
    "MaskFormerDetrMHAttentionMap": frozenset({"k_proj"}),
}

DECODER_LAYERS = tuple(dict.fromkeys(f.decoder_layer for f in FAMILIES if f.decoder_layer is not None))
EXPERTS = tuple(f.experts for f in FAMILIES if f.experts is not None)
GATED_MLPS = tuple(f.mlp for f in FAMILIES if f.mlp is not None)
PRESETS = {name: layers for f in FAMILIES for name, layers in (f.presets or {}).items()}
