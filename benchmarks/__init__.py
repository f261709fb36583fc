"""How fast it is, against aims."""
