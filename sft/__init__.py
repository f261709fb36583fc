"""What training, answering and evaluation share: configuration, data, prompts, tokens, models, runs."""
