"""What the slow tests of the tiny experiment share."""

from tiny_fixtures import nursery, undisturbed

__all__ = ["nursery", "undisturbed"]
