"""Keys and packages of the libraries behind the sections, known without importing them."""
