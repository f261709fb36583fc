"""sft/training."""
