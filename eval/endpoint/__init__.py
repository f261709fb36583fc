"""Servers that speak OpenAI's API: anybody's engine is asked, and what it said is kept."""
