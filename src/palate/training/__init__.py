"""One adapter per anchor preference, and the library on disk."""
