"""Documents of blocks as one HTML file, and their drawings; they know nothing of rows, runs or results."""
