"""The model card: what was trained on what, how good it is, and under which licences."""
