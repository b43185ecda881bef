"""What everything is written in: types, protocols, errors, simplex, seeds, files."""
