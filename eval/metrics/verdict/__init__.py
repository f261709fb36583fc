"""Verdict: whether an answer says what its reference says, by rules about Japanese sentences."""
