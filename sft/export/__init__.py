"""sft/export."""
