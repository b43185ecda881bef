"""Spectral souping: coefficients over experts, learned from feedback.

Read `spectral` first: the paper from basis to plan, with the place of every other file here.
"""
