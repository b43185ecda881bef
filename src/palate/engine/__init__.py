"""Engines: what executes plans, in this process or behind a server."""
