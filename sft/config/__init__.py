"""The configuration: what may stand in a YAML file, and how it is checked before anything is loaded."""
