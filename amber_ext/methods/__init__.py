"""What is done to a whole model, in place and all or nothing: `sparsify_`, `quantize_`, and how models are saved."""
