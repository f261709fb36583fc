"""Many prompts answered at once: how they are read, remembered and decoded."""
