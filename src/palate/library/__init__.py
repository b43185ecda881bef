"""The library: the folder on disk and its opened form."""
