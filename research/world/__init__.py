"""Studies of the small world: its base, its experts."""
