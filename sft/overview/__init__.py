"""What a file of rows is, before any configuration or model: the page of `python -m sft.data`."""
