"""The report of a sweep: what it says, as HTML, Markdown and JSON, and its verification."""
