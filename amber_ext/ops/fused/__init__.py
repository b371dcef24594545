"""Fused producers: ops that make a layer's pruned input out of what it is computed from, and the product that reads it.

What lies between the two is a `form.CompressedForm`; its contract is in docs/design.md, "The compressed form".
"""
