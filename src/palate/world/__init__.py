"""The embedded default: a small assistant world with known rewards."""
