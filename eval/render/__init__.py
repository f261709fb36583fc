"""Documents as Markdown, HTML, SVG and terminal text; they know nothing of results."""
