"""Modules: pruned and quantised layers, finding the linears of a model and putting others in their place."""
