"""MoPE: a controller that mixes experts token by token."""
