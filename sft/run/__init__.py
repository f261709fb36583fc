"""A run's directory: who may write to it, what is recorded in it, which rows it held out."""
