"""What is measured, a file a part."""
