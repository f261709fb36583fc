"""sft/plan."""
