"""Requests and responses as they cross the wire: one model for each, unknown keys are errors."""
