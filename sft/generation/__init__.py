"""Answers: settings, the penalty that knows the prompt from the answer, batches, streaming, a loaded run."""
