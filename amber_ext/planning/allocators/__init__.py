"""Ways to choose a pattern for each projection at a wanted cost, beside the loss model of `amber_ext.planning`."""
