"""`amber_ext.tune`: measures which kernels are fastest on this machine's GPU, for the shapes of a model."""
