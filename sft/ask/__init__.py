"""A person asks a finished run: one question, a session, or a file of questions."""
