"""Tiny tokenizers of the kinds that chat models have, with ChatML's markers as special tokens."""

from __future__ import annotations

from typing import Any

import tiny

MARKERS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
UNKNOWN = ("wordpiece", "unigram")
"""Kinds that have a token for what they do not know."""
KINDS = ("bytes", "llama", "metaspace", "gemma", "wordpiece", "unigram")
_TEXT = [*tiny._TEXT, "Zyx it's <b>so</b>\n\n- one\n- two <|im_end|> im_start end_of_turn [INST]"]


def tokenizer_of(kind: str, template: str = tiny.CHATML, **how: Any) -> Any:
    """A tokenizer of a kind, trained on a few lines."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=_inner(kind),
        **{
            "bos_token": "<s>",
            "eos_token": "<|im_end|>",
            "unk_token": "[UNK]" if kind in UNKNOWN else None,
            **how,
        },
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = template
    return made


def _inner(kind: str) -> Any:
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "bytes":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        how = {"initial_alphabet": alphabet}
    elif kind == "wordpiece":
        inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
        how = {}
    else:
        inner = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE(byte_fallback=True))
        spaces = normalizers.Replace(" ", "▁")
        if kind == "llama":
            inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        elif kind == "gemma":
            inner.normalizer = spaces
            inner.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
        else:
            scheme = "first" if kind == "metaspace" else "always"
            inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        how = {"initial_alphabet": [chr(one) for one in range(33, 127)]}
    special = ["[UNK]", *MARKERS] if kind in UNKNOWN else MARKERS
    how |= {"unk_token": "[UNK]"} if kind == "unigram" else {}
    trained = {
        "wordpiece": trainers.WordPieceTrainer,
        "unigram": trainers.UnigramTrainer,
    }.get(kind, trainers.BpeTrainer)
    inner.train_from_iterator(
        _TEXT * 4, trained(vocab_size=500, special_tokens=special, show_progress=False, **how)
    )
    return inner
