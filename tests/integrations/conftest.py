"""What tests of other people's tools share; a tool that is not installed skips its tests.

`make test-slow` installs them all.
"""

from command_fixtures import cli

__all__ = ["cli"]
