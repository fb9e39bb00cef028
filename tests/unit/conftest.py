"""What the unit tests share."""

from command_fixtures import cli

__all__ = ["cli"]
