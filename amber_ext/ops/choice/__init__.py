"""Which kernel runs a product, for every number of tokens: measured on this machine, shipped, or predicted.

`plan` decides; `devices` and `prediction` are the heuristic, `measured` the two tables.
"""
