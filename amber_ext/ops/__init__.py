"""Tensors in, tensors out: patterns, scores, the reference, the compiled ops, and which of them runs.

Knows no ``nn.Module``.
"""
