"""What others can use of a finished run: its adapter, or the merged model, with tokenizer and card."""
