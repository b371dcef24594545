"""Small models of many architectures, of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from architectures.ways import PROMPT

# What configurations call their sizes; each takes those that it has.
SIZES = {
    "vocab_size": 99, "hidden_size": 64, "d_model": 64, "n_embd": 64, "word_embed_proj_dim": 64, "intermediate_size": 64,
    "ffn_dim": 64, "n_inner": 64, "d_ff": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "num_hidden_layers": 2,
    "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "n_head": 4, "n_heads": 4, "num_heads": 4, "d_kv": 16,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4, "max_position_embeddings": 128, "n_positions": 128,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "state_size": 8, "conv_kernel": 4, "time_step_rank": 8, "rotary_dim": 8,
    "sliding_window": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


IMAGE_TOKEN, AUDIO = 98, torch.linspace(-1, 1, 128)

MODEL_OF_KIND = {
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "speech": "AutoModelForSpeechSeq2Seq",
    "multimodal": "AutoModelForImageTextToText",
}


@dataclass(frozen=True)
class Architecture:
    """One line of the table.

    Attributes:
        name: transformers' ``model_type``.
        kind: decoder, MoE, SSM or hybrid, encoder-decoder, speech, multimodal.
        fields: of the configuration, beside `SIZES`.
        cached: False for a model that runs without a cache: each call starts from the first token.
        prompt: tokens of the prompt in the decoder; by default those that are given, or an encoder-decoder's start.
        called: the module inside that ``generate`` calls, where it is not the model itself.
        image: whether the prompt has an image, of 4 tokens.
    """

    name: str
    kind: str = "decoder"
    fields: Mapping[str, object] = field(default_factory=dict)
    cached: bool = True
    prompt: int | None = None
    called: str = ""
    image: bool = False

    @property
    def is_encoder_decoder(self):
        return self.kind in ("encoder-decoder", "speech")

    def build(self):
        import transformers

        kind = type(transformers.AutoConfig.for_model(self.name))
        known = kind()
        sizes = {
            k: v
            for k, v in SIZES.items()
            if hasattr(known, k) and not isinstance(getattr(kind, k, None), property)
        }
        config = kind(**sizes | self.fields)
        if hasattr(config, "is_decoder"):
            config.is_decoder = not self.is_encoder_decoder
        torch.manual_seed(0)
        return (
            getattr(transformers, MODEL_OF_KIND.get(self.kind, "AutoModelForCausalLM"))
            .from_config(config)
            .eval()
        )

    def inputs(self):
        """Of ``generate``."""
        if self.kind == "speech":
            return {
                "input_features": AUDIO.view(1, 8, 16) if self.name == "whisper" else AUDIO.view(1, 16, 8)
            }
        if not self.image:
            return {"input_ids": PROMPT}
        image = {"pixel_values": torch.linspace(-1, 1, 192).view(1, 3, 8, 8)}
        return image | {"input_ids": torch.cat([torch.full((1, 4), IMAGE_TOKEN), PROMPT], -1)}

    @property
    def prompt_length(self):
        return self.prompt or (1 if self.is_encoder_decoder else self.inputs()["input_ids"].shape[1])


def several(names, kind="decoder", *options, **more):
    return [Architecture(name, kind, *options, **more) for name in names.split()]


TEXT = {
    "vocab_size": 99, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2}
DELTA_NET = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}  # fmt: skip
MROPE = {**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 4,
}

DECODERS = [
    *several("apertus arcee bart bert bert-generation big_bird bigbird_pegasus biogpt bitnet blenderbot"),
    *several(
        "blenderbot-small bloom codegen cohere cohere2 ctrl diffllama electra ernie4_5 exaone4 falcon gemma gemma2"
    ),
    *several(
        "gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neox gptj granite helium llama marian mbart megatron-bert"
    ),
    *several(
        "mistral modernbert-decoder mvp nemotron olmo olmo2 opt pegasus persimmon phi phi3 plbart qwen2 qwen3"
    ),
    *several("rembert roberta roformer seed_oss smollm3 stablelm starcoder2 trocr whisper xglm xlnet"),
    Architecture("gpt_neo", fields={"attention_types": [[["global", "local"], 1]]}),
    Architecture("mpt", cached=False),
    Architecture("prophetnet", fields={"num_decoder_layers": 2, "num_encoder_layers": 2}),
    Architecture(
        "reformer",
        fields={
            "axial_pos_embds": False,
            "attn_layers": ["local", "lsh"],
            "num_buckets": 2,
            "attention_head_size": 16,
            "feed_forward_size": 64,
        },
    ),  # fmt: skip
    Architecture(
        "xlm", cached=False, prompt=11
    ),  # a mask behind the prompt; it cuts off itself what it has seen
]

MIXTURES = [
    *several(
        "afmoe aria_text ernie4_5_moe glm4_moe gpt_oss granitemoe jetmoe llama4_text mixtral olmoe phimoe",
        "MoE",
    ),
    *several("qwen2_moe qwen3_moe", "MoE"),
    *several("deepseek_v2 deepseek_v3", "MoE", LATENT),
]

HYBRIDS = [
    *several("falcon_mamba mamba rwkv", "SSM or hybrid"),
    *several("qwen3_next qwen3_5_text", "SSM or hybrid", DELTA_NET),
    *[
        Architecture(name, "SSM or hybrid", fields)
        for name, fields in {
            "bamba": {"attn_layer_indices": [1], "mamba_n_groups": 1, **MAMBA},
            "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_groups": 1, **MAMBA},
            "granitemoehybrid": {"layer_types": ["mamba", "attention"], **MAMBA},
            "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
                      "mamba_d_state": 8, "use_mamba_kernels": False, "mamba_dt_rank": 8},
            "lfm2": {"layer_types": ["conv", "full_attention"]},
            "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "expand": 2},
            "minimax": {"layer_types": ["linear_attention", "full_attention"]},
            "nemotron_h": {"hybrid_override_pattern": "M*", "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1,
                           "ssm_state_size": 8},
            "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 64, "attention_window_size": 16},
            "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_d_state": 8,
                       "n_mamba_heads": 8, "mamba_headdim": 16, "mamba_ngroups": 1},
        }.items()
    ],
]  # fmt: skip

ENCODER_DECODERS = [
    *several("bart bigbird_pegasus blenderbot led longt5 m2m_100 mbart mt5 mvp nllb-moe pegasus plbart umt5",
             "encoder-decoder"),
    *several("marian t5", "encoder-decoder", {"decoder_start_token_id": 0}),
    Architecture("prophetnet", "encoder-decoder", {"num_decoder_layers": 2, "num_encoder_layers": 2}),
    Architecture("switch_transformers", "encoder-decoder", {
        "decoder_start_token_id": 0, "num_sparse_encoder_layers": 1, "num_decoder_layers": 2,
        "num_sparse_decoder_layers": 1}),
    Architecture("whisper", "speech", {
        "max_source_positions": 8, "num_mel_bins": 8, "decoder_start_token_id": 3, "suppress_tokens": None,
        "begin_suppress_tokens": None}),
    Architecture("speech_to_text", "speech", {"input_feat_per_channel": 8}),
]  # fmt: skip

MULTIMODAL = [
    *[
        Architecture(name, "multimodal", {"text_config": text, "vision_config": vision, **fields}, image=bool(fields),
                     called="language_model" if name == "blip-2" else "")
        for name, text, vision, fields in (
            ("aya_vision", {"model_type": "cohere2", **TEXT}, {"model_type": "siglip_vision_model", **VISION}, {}),
            ("gemma3", TEXT, VISION, {"mm_tokens_per_image": 4, "image_token_index": IMAGE_TOKEN}),
            ("idefics3", {"model_type": "llama", **TEXT}, VISION, {}),
            ("internvl", {"model_type": "qwen2", **TEXT}, {**VISION, "image_size": [8, 8], "patch_size": [4, 4]}, {}),
            ("llava", {"model_type": "llama", **TEXT}, {"model_type": "clip_vision_model", **VISION, "projection_dim": 32},
             {"image_token_index": IMAGE_TOKEN}),
            ("mistral3", {"model_type": "mistral", **TEXT}, {"model_type": "pixtral", **VISION}, {}),
            ("mllama", {**TEXT, "cross_attention_layers": [1]},
             {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_global_layers": 1,
              "attention_heads": 2, "image_size": 8, "patch_size": 4, "vision_output_dim": 64,
              "intermediate_layers_indices": [0]}, {}),
            ("paligemma", {"model_type": "gemma", **TEXT}, {"model_type": "siglip_vision_model", **VISION},
             {"projection_dim": 64, "hidden_size": 64, "image_token_index": IMAGE_TOKEN}),
            ("qwen2_5_vl", MROPE, QWEN_VISION, {}),
            ("qwen2_vl", MROPE, {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "patch_size": 4,
                                 "mlp_ratio": 1}, {}),
            ("qwen3_vl", MROPE, {**QWEN_VISION, "deepstack_visual_indexes": [0]}, {}),
            ("smolvlm", {"model_type": "llama", **TEXT}, VISION, {}),
            ("blip-2", {"model_type": "opt", "vocab_size": 99, "hidden_size": 64, "ffn_dim": 64, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "word_embed_proj_dim": 64, "max_position_embeddings": 128}, VISION,
             {"qformer_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                                 "intermediate_size": 32, "encoder_hidden_size": 32, "vocab_size": 99},
              "num_query_tokens": 4, "image_token_index": IMAGE_TOKEN}),
        )
    ],
]  # fmt: skip

ARCHITECTURES = [*DECODERS, *MIXTURES, *HYBRIDS, *ENCODER_DECODERS, *MULTIMODAL]
