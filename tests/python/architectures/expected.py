"""Where an architecture's outcome is not what is expected of all: that everything works, in every way to run it."""

# Columns of `outcomes.outcome` that are not "yes", by what they contain.
UNKNOWN_CACHE = "caches, but its forward takes no cache or past_key_values"
NO_LINEARS = "contains no linear layers to prune"
UNREACHED = "without smoothing: ValueError: batches: no calibration token reached the layer"
# Calibration gives a model tokens alone: an encoder-decoder of these kinds wants more.
WANTS_MORE = "without smoothing: "
READS_WEIGHT = "reads the weight of"  # of a linear, without calling it
DENSE_FAILS = "the dense model does not come back either"

CROSS_ATTENDING = """bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet trocr
whisper""".split()
VISION = """aya_vision gemma3 idefics3 internvl llava mistral3 mllama paligemma qwen2_5_vl qwen2_vl qwen3_vl smolvlm
""".split()

DIFFERS = {
    ("gpt2", "decoder"): {"sparsify": NO_LINEARS, "quantize": NO_LINEARS},  # its own Conv1D
    ("granitemoe", "MoE"): {"save and load": DENSE_FAILS, "save and load quantized": DENSE_FAILS},
    ("jetmoe", "MoE"): {"save and load quantized": "contained shared tensors"},  # one router in two places
    **{
        (name, kind): {"sparsify": UNKNOWN_CACHE, "quantize": UNKNOWN_CACHE}
        for name, kind in (("xlnet", "decoder"), ("reformer", "decoder"), ("rwkv", "SSM or hybrid"))
    },
    **{(name, "decoder"): {"quantize": UNREACHED} for name in CROSS_ATTENDING},
    **{(name, "multimodal"): {"quantize": UNREACHED} for name in VISION},
    ("blip-2", "multimodal"): {"quantize": WANTS_MORE},
    ("led", "encoder-decoder"): {"quantize": UNREACHED},
    **{
        (name, "encoder-decoder"): {"quantize": WANTS_MORE}
        for name in """blenderbot longt5 m2m_100 marian mt5 nllb-moe pegasus prophetnet t5 umt5
        """.split()
    },
    ("switch_transformers", "encoder-decoder"): {"quantize": READS_WEIGHT},  # its router's
    ("whisper", "speech"): {"quantize": WANTS_MORE},
    ("speech_to_text", "speech"): {"quantize": WANTS_MORE},
}
for name in ("falcon_mamba", "mamba", "jamba"):
    DIFFERS.setdefault((name, "SSM or hybrid"), {})["quantize"] = READS_WEIGHT
DIFFERS["reformer", "decoder"]["quantize"] = READS_WEIGHT  # and its past is no cache

# Ways (`ways.WAYS`) that transformers 5.24 does not run, with nothing pruned.
CANNOT = {
    ("mpt", "decoder"): {"chunked", "prompt lookup"},
    ("prophetnet", "decoder"): {"static cache", "chunked", "second turn", "bare calls"},
    ("xlm", "decoder"): {"static cache", "chunked", "prompt lookup", "second turn", "bare calls"},
    ("prophetnet", "encoder-decoder"): {"static cache", "second turn", "bare calls"},
    ("switch_transformers", "encoder-decoder"): {"bare calls"},
    ("whisper", "speech"): {"chunked"},
    ("blip-2", "multimodal"): {"chunked", "second turn", "bare calls"},
    ("recurrent_gemma", "SSM or hybrid"): {"chunked", "prompt lookup", "bare calls"},
    **{
        (name, "SSM or hybrid"): {"chunked", "prompt lookup"}
        for name in ("falcon_mamba", "mamba", "mamba2", "minimax")
    },
    **{
        (name, "SSM or hybrid"): {"prompt lookup"}
        for name in "bamba falcon_h1 granitemoehybrid jamba nemotron_h qwen3_5_text qwen3_next zamba2".split()
    },
}
