"""Numbers about quality, each with its interval."""
