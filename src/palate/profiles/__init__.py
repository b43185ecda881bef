"""People, kept in a database."""
