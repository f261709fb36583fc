"""Every configuration for CUDA at its model's real shape, on a GPU that is not there."""
