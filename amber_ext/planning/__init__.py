"""What to prune: sensitivity, the paper's rule, and plans for a wanted cost."""
