"""W8A8 checkpoints in the format of compressed-tensors, which llm-compressor writes, as models of `QuantizedLinear`."""

QUANT_METHOD = "compressed-tensors"  # in the config.json of such a folder
