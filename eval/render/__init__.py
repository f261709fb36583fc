"""Numbers, marks, Markdown and terminal tables of a report; HTML and drawings are `sft.page`."""
