"""Users, kept in a database."""
