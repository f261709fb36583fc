"""How a model attends while it answers: prompts packed, and rows that go on by several tokens."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

ROW_BY_ROW = "row_by_row"
"""Attention to a cache of rows for tokens that stand one after another, some of each row."""


class RowPlaces(NamedTuple):
    """Where the tokens of rows stand among all that are read, rows one after another."""

    tokens: torch.Tensor
    """(rows, places): each row's tokens among all, shorter rows filled up with any."""
    places: torch.Tensor
    """(tokens,): each token's place in rows × places."""


@contextlib.contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Within it, `model` attends by this implementation."""
    usual = model.config._attn_implementation
    # In the configuration, where layers read it: `set_attn_implementation` takes 1 to 2 ms, too long for every step.
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = usual


def _row_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    row_places: RowPlaces,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Queries (1, heads, tokens, size), keys of rows, a mask of (rows, 1, places, keys) → (1, tokens, heads, size)."""
    heads, shared = query.shape[1], key.shape[1]
    rows, places = row_places.tokens.shape
    # Heads that share keys attend as one with so many times the places: transformers copies the keys for each of them.
    by_row = query[0][:, row_places.tokens].unflatten(0, (shared, -1)).permute(2, 0, 1, 3, 4).flatten(2, 3)
    mask = attention_mask.repeat(1, 1, heads // shared, 1)
    attended = scaled_dot_product_attention(by_row, key, value, mask, scale=scaling)
    return attended.reshape(rows, heads, places, -1).transpose(1, 2).flatten(0, 1)[row_places.places][None], None


AttentionInterface.register(ROW_BY_ROW, _row_by_row)
