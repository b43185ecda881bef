"""Studies that make the reports, by paper; not installed."""
