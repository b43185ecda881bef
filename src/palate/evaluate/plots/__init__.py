"""Plots: the only place that speaks to matplotlib; they read numbers and never run a model."""
