"""Tasks of the lm-evaluation-harness under one user's method."""
