"""The doctor: what will go wrong, said before a GPU hour is spent on it."""
