"""From a row to tokens and labels: the prompt's text, its tokens, the rows encoded once."""
