"""Where the torch engine's models come from: a GGUF, a local folder, or a few random weights."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ...memory.errors import ConfigError
from ...router.types import ModelSpec
from ..models import model_path

TINY = "tiny-random"
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    model: Any
    tokenizer: Any
    #: token ids that end an answer
    eos: tuple[int, ...]
    pad: int


def load_source(spec: ModelSpec, home: Path, dtype: torch.dtype, device: str) -> Loaded:
    """The model of `spec.source` on `device`. Nothing is downloaded, and no code from its folder runs.

    Raises:
        ConfigError: the source is missing or transformers cannot load it.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if spec.source == TINY:
            tokenizer, model = _tiny(spec.context, dtype)
        else:
            tokenizer, model = _pretrained(spec, home, dtype)
        model = model.to(device).eval()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ConfigError(
            f"transformers cannot load {spec.source} for model {spec.name}: {error}",
            mend="give a GGUF of a supported architecture or a local folder of a causal language model",
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"model {spec.name} has no fast tokenizer", mend="add a tokenizer.json to its folder"
        )
    # Settings that its folder brings would be reset by the first call, under another thread's feet.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    eos = _eos(tokenizer, model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos[0]
    return Loaded(model, tokenizer, eos, pad)


def _pretrained(spec: ModelSpec, home: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    folder = Path(spec.source).expanduser()
    if folder.is_dir():
        where, extra = str(folder), {}
    else:
        path = model_path(spec.source, home)
        where, extra = str(path.parent), {"gguf_file": path.name}
        _silence_gguf_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, **extra}
    tokenizer = AutoTokenizer.from_pretrained(where, **options)
    return tokenizer, AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **options)


def _silence_gguf_bar() -> None:
    """This one bar of transformers does not hear `disable_progress_bar`."""
    module = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    if hasattr(module, "tqdm"):
        vars(module)["tqdm"] = partial(tqdm, disable=True)


def _tiny(context: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """A two-layer Llama over bytes, the same weights every time."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*_SPECIAL, *letters])}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = _CHATML
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
        return tokenizer, model.to(dtype)


def _eos(tokenizer: Any, model: Any) -> tuple[int, ...]:
    ids: list[int] = []
    for found in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ids += found if isinstance(found, list) else [] if found is None else [found]
    if not ids:
        raise ValueError("the model has no end-of-text token")
    return tuple(dict.fromkeys(ids))
