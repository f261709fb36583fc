"""How tokens attend: inside their own row alone, wherever rows stand one after another."""
