"""What only a GPU can show, measured in minutes: python -m benchmarks.gpu."""
