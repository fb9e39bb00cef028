"""What the tiny experiment's tests share."""

from tiny_fixtures import nursery, undisturbed

__all__ = ["nursery", "undisturbed"]
