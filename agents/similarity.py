"""How near two short texts are in meaning, by static word vectors: no network, no model call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..memory.retrieval.vectors import StaticEmbedder

#: of a vector: all that the embedding has; the few texts compared here cost nothing
_DIMENSIONS = 256


@cache
def _embedder() -> StaticEmbedder:
    from ..memory.retrieval.vectors import StaticEmbedder

    return StaticEmbedder(_DIMENSIONS)


def rank(query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """`(index, similarity)` of every text, most similar first; equals stay in their order.

    Similarity is the cosine of the mean word vectors, in -1…1; a text without a known word has 0.

    Raises:
        ConfigError: the files of the package `wordllama` are missing.
    """
    if not texts:
        return []
    vectors = _embedder().embed([query, *texts])
    scores = vectors[1:] @ vectors[0]
    return sorted(((i, float(s)) for i, s in enumerate(scores)), key=lambda pair: -pair[1])
