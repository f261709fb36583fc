"""What knows nothing of models or rows: errors, files, terminal text, processes, the hub, YAML."""
