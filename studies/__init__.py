"""Studies that anybody can rerun with one command."""
