"""A training, from the checked configuration to the saved adapter."""
