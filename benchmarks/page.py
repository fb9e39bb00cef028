"""`docs/performance.md` out of the results: `python -m benchmarks.page`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS
from benchmarks.growth import NAME as GROWTH
from benchmarks.growth import Growth
from benchmarks.limits import Limits
from benchmarks.result import RESULTS, Machine, Result

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """\
# Performance

Generated from `benchmarks/results/*.json` by `python -m benchmarks.page`; a test compares them.
`make bench` measures all of it anew, `make bench-quick` shows in minutes that it works.

## How it is measured
- Both sides do the same work on the same model and data, in turn, each time in a process of its
  own. A ratio is ours through the peer's in one round; the median is shown, with the smallest and
  the largest.
- The peer is taken in its fastest setting that computes what was asked; every setting tried is
  listed. Both sides' results are compared: the losses of training, step by step where the order is
  the same; for sampling the mean of log p + entropy under a plain forward pass, which is 0 for
  exact samples. Sides that disagree give no result.
- Tokens are counted as a user counts them: prompts and answers in training, no padding; new tokens
  in sampling, the reading of the prompts within the time.
- Warm-up (compiling, first calls) is not in the speed but stated; the last column spreads the
  longest of any round over a usual amount of work.
- Utilisation is the operations that the work needs (logits of answer tokens alone in training,
  no weight gradients for LoRA's frozen weights) through the fastest matrix product measured in the
  same run. Memory is the most that a side's process had resident, libraries and loading included;
  on a GPU, the most that its tensors took.
- Neither side writes checkpoints.
"""
EMPTY = "\nNo results yet: run `make bench`.\n"


def read(folder: Path = RESULTS) -> tuple[list[Result], Growth | None]:
    """The results in a folder, in the order of the catalogue."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    grown = found.get(GROWTH)
    results = [Result.model_validate_json(found[name]) for name in BENCHMARKS if name in found]
    return results, Growth.model_validate_json(grown) if grown else None


def render(results: Sequence[Result], grown: Growth | None) -> str:
    """The page."""
    if not results and not grown:
        return HEAD + EMPTY
    parts = [HEAD]
    if results:
        parts += ["\n## Ours and the peer\n\n", _summary(results), *map(_details, results)]
    if grown:
        parts.append(_growth(grown))
    return "".join(parts)


def write(folder: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page from the results in a folder."""
    target.write_text(render(*read(folder)), encoding="utf-8")


def _summary(results: Iterable[Result]) -> str:
    head = ("", "peer", "ours", "peer", "ratio", "memory", "utilisation", "warm-up counted")
    rows = [
        (
            f"[{one.name}](#{one.name})" + (" (quick run)" if one.quick else ""),
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
        f"\n## {one.name}\n",
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
    return "\n" + _table(("peer's setting", "tokens/s", "memory", "why it does not count"), rows)


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
        f"\n## {GROWTH}\n\nOurs alone, over batch size, length and model size"
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
