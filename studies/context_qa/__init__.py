"""Why context questions fail after tuning."""
