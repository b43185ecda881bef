"""The demo: the whole story on the embedded world, and its page."""
