"""What is measured on one answer."""
