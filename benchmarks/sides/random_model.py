"""Writes a model of a given shape with random weights; measures nothing."""

# pyright: basic
from __future__ import annotations

import shutil

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.shapes import SHAPES
from benchmarks.work import RandomModelWork as Work


def measure(work: Work) -> Work:
    """Write the model's folder, whole or not at all."""
    draft = work.folder.with_name(work.folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    config = AutoConfig.for_model(**SHAPES[work.shape])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # transformers draws first weights from the global generator
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(str(work.tokenizer)).save_pretrained(draft)
    draft.rename(work.folder)
    return work
