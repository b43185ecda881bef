"""Beliefs about users's preferences."""
