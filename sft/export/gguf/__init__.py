"""GGUF: a merged export as a file that llama.cpp and Ollama read."""
