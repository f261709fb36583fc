"""The base model: where it runs, how it is loaded, LoRA on top, attention within documents, the loss."""
