"""The annotation tool of scripts/annotate.py: a local server, and a page for the browser."""
