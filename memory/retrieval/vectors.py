"""Static word vectors: what texts are about, without a model to run.

The vectors are WordLlama's (https://github.com/dleemiller/WordLlama, MIT): token embeddings of large language
models, trained to be averaged, whose first dimensions stand for the whole. They come with its wheel.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .columns import Column

Vectors = NDArray[np.float32]

#: of a text's vector. More were no better in search, and the scan takes time in proportion
DIMENSIONS = 64
#: characters of a text that its vector is made from
LONGEST_TEXT = 4_000
#: cosine: a text as near to a question as that is about it, though they share no word
NEAR_TEXT = 0.2
#: remembered words; the memory is emptied when it is full
_REMEMBERED = 100_000


class Embedder(Protocol):
    """Anything that makes vectors of texts."""

    @property
    def name(self) -> str:
        """What tells its vectors from those of another one: stored with each."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, of length 1; zeros for a text that it knows no word of."""
        ...


class StaticEmbedder:
    """WordLlama's vectors, averaged over a text's tokens. 20 MB; loads in a tenth of a second."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        """
        Raises:
            ConfigError: the files of the package `wordllama` are missing.
        """
        self.dimensions = dimensions
        self.name = f"wordllama-l2-{dimensions}"
        self._tokens, self._tokenizer = _load()
        # the sum of its tokens' vectors of each word that was met, and its row there
        self._rows: dict[str, int] = {}
        self._sums = Column(np.float32, width=dimensions)
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        # tokens do not cross spaces: a word's sum is the same in every text
        split = [text[:LONGEST_TEXT].split() for text in texts]
        with self._lock:  # threads share the words
            self._learn(split)
            rows, sums = self._rows, self._sums.all
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for i, words in enumerate(split):
            if words:
                np.add.reduce(sums.take([rows[word] for word in words], 0), 0, out=found[i])
        return unit(found)

    def _learn(self, split: Sequence[Sequence[str]]) -> None:
        """Remember all words of texts."""
        if len(self._rows) > _REMEMBERED:
            self._rows = {}  # another thread may still read the old ones
            self._sums = Column(np.float32, width=self.dimensions)
        new = list(dict.fromkeys(word for words in split for word in words if word not in self._rows))
        sums = np.zeros((len(new), self.dimensions), np.float32)
        for i, word in enumerate(new):
            self._rows[word] = len(self._rows)
            np.add.reduce(self._tokens[self._ids(word), : self.dimensions], 0, out=sums[i])
        self._sums.append(sums)

    def _ids(self, word: str) -> list[int]:
        # not in batches: those start threads, which a process that forks afterwards must not have
        return self._tokenizer.encode(word, add_special_tokens=False).ids


def unit(vectors: Vectors) -> Vectors:
    """The rows at length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


@lru_cache(maxsize=1)
def default_embedder() -> StaticEmbedder:
    """The one of this process.

    Raises:
        ConfigError: the files of the package `wordllama` are missing.
    """
    return StaticEmbedder()


def _load() -> tuple[Vectors, Any]:
    """The vectors of all tokens, and the tokenizer.

    The package itself is not imported: that sets up the program's logging and loads an HTTP client.
    """
    mend = "reinstall it: pip install --force-reinstall wordllama"
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the package wordllama is not installed", mend=mend)
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    home = Path(spec.submodule_search_locations[0])
    weights = home / "weights" / "l2_supercat_256.safetensors"
    words = home / "tokenizers" / "l2_supercat_tokenizer_config.json"
    if not (weights.is_file() and words.is_file()):
        raise ConfigError(f"the package wordllama in {home} lacks its vectors", mend=mend)
    tokenizer = Tokenizer.from_file(str(words))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (vectors,) = load_file(weights).values()
    return vectors.astype(np.float32), tokenizer
