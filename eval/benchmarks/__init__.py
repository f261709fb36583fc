"""Benchmarks that others published: a file each, and how their rows are read."""
