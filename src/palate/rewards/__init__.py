"""From text to numbers on one common scale."""
