"""What a training will be, before the base model's weights: rows encoded, steps, memory, activations."""
