"""Blocks of a model whose pruned inputs are made by fused ops (`amber_ext.ops.fused`)."""
