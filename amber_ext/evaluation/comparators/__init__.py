"""Methods of others, for comparison: what they do to a model's inputs or weights, in evaluation alone."""

from amber_ext.evaluation.comparators.registry import COMPARATORS

__all__ = ["COMPARATORS"]
