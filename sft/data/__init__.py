"""Rows: what an example is, how files and hub data sets are read, where rows lie, how they are split."""
