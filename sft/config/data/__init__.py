"""What section `data` may say: files, columns, categories, their balance and groups."""
