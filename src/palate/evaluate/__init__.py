"""Evaluation: people x prompts x ways, and the report."""
