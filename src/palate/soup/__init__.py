"""Spectral souping: coefficients over experts, learned from feedback."""
