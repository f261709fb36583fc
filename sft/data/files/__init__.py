"""From a path to tables: which files, in which encoding and format."""
