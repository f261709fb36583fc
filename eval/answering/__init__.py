"""Rows are answered: the only part of the evaluation that needs torch."""
