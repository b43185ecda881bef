"""Beliefs about people's preferences."""
