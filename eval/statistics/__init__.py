"""Means, intervals and p values of scores; they know nothing of answers."""
