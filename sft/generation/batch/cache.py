"""Keys and values with room for the tokens to come: transformers' own cache copies all of them for every token."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM_TOKENS = 64
"""Tokens that memory is set aside for when there is none left."""


class GrowingLayer(DynamicLayer):
    """DynamicLayer, except that `keys` and `values` are the filled part of larger tensors.

    Rows may go on at columns of their own, see `write_at`: what a row has behind those is overwritten as it goes on.
    """

    places: tuple[torch.Tensor, torch.Tensor] | None = None
    """The row and the column that each token's keys and values are written at next; None: behind all others."""
    end = 0
    """The column behind the last of those."""

    @property
    def left_behind(self) -> int:
        """How many columns were there before the first of `keys` and `values`."""
        return int(self.get_seq_length()) - self.keys.shape[2]

    def update(self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Add keys and values, and return all, (rows, heads, tokens, width).

        They have the same shape, or (1, heads, tokens of all rows, width) where `places` says whose they are.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.places is None:
            needed = self.sliding_window - 1 if self.is_sliding else None
            self.keys = _append(self.keys, key_states, needed)
            self.values = _append(self.values, value_states, needed)
        else:
            first, (rows, columns) = self.left_behind, self.places
            self.keys = _with_room(self.keys, self.end - first)
            self.values = _with_room(self.values, self.end - first)
            self.keys[rows, :, columns - first] = key_states[0].transpose(0, 1)
            self.values[rows, :, columns - first] = value_states[0].transpose(0, 1)
        return self.keys, self.values


class GrowingSlidingLayer(GrowingLayer, DynamicSlidingWindowLayer):
    """DynamicSlidingWindowLayer, except that `keys` and `values` are parts of larger tensors and may hold more tokens.

    What has left the window is left behind when memory is set aside anew, or when rows are joined.
    """

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Add keys and values, and return what the new tokens may see, or more."""
        if self.places is not None:
            states = super().update(key_states, value_states)
            self.cumulative_length = self.end
            return states
        tokens = key_states.shape[2]
        self.cumulative_length += tokens
        seen = self.sliding_window - 1 + tokens
        return tuple(states[:, :, -seen:] for states in super().update(key_states, value_states))


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model of this configuration; layers of neither kind above stay the library's own."""
    cache = DynamicCache(config=config)
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[place] = GrowingLayer()
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[place] = GrowingSlidingLayer(layer.sliding_window)
    return cache


def can_join(config: PretrainedConfig) -> bool:
    """Whether `join` knows every layer of this model's cache."""
    return all(isinstance(layer, GrowingLayer) for layer in growing_cache(config).layers)


def join(cache: DynamicCache, rows: Sequence[tuple[int, int]], others: Sequence[DynamicCache], width: int) -> None:
    """Make `cache` hold some of its own rows and those of `others` below, their last tokens side by side.

    `rows` are its own as (number, the column behind its last token); those of `others` end at their last column.
    `width` tokens are kept of each row; in front of shorter rows is what a mask has to hide.
    """
    for layer, *more in zip(cache.layers, *(other.layers for other in others), strict=True):
        if not layer.is_initialized:
            layer.lazy_initialization(more[0].keys, more[0].values)
        first, held = layer.left_behind if rows else 0, width
        if isinstance(layer, GrowingSlidingLayer):
            layer.cumulative_length = width
            held = min(width, layer.sliding_window - 1)
        for name in ("keys", "values"):
            own = getattr(layer, name)
            parts = [own[row : row + 1, :, : end - first] for row, end in rows]
            setattr(layer, name, _stack([*parts, *(getattr(part, name) for part in more)], held))


def write_at(cache: DynamicCache, rows: torch.Tensor, columns: torch.Tensor, end: int) -> None:
    """Let the next tokens' keys and values be written at these rows and columns, which are all before `end`."""
    for layer in cache.layers:
        layer.places, layer.end = (rows, columns), end


def visible(cache: DynamicCache, firsts: torch.Tensor, columns: torch.Tensor, end: int) -> dict[str, torch.Tensor]:
    """By kind of layer, (rows, 1, places, columns that it holds): 0 where a token may look, else -inf.

    That is from the first of its row's columns, `firsts` (rows,), or of its window, to its own in `columns`, (rows,
    places). `end` is that of `write_at`.
    """
    masks = {}
    for layer in cache.layers:
        kind = "sliding_attention" if layer.is_sliding else "full_attention"
        if kind in masks:
            continue
        held = torch.arange(layer.left_behind, end, device=columns.device)
        sees = (held >= firsts[:, None, None]) & (held <= columns[:, :, None])
        if layer.is_sliding:
            sees &= held > columns[:, :, None] - layer.sliding_window
        masks[kind] = torch.zeros_like(sees, dtype=layer.dtype).masked_fill_(~sees, float("-inf"))[:, None]
    return masks


def _append(held: torch.Tensor, more: torch.Tensor, needed: int | None = None) -> torch.Tensor:
    rows, heads, tokens, width = more.shape
    filled = held.shape[2] if held.numel() else 0
    room = held.stride(1) // held.stride(2) if filled else 0  # tokens that the tensor `held` is part of has
    if filled + tokens <= room:
        whole = held.as_strided((rows, heads, room, width), held.stride())
    else:
        left, filled = filled, filled if needed is None else min(filled, needed)
        whole = more.new_empty(rows, heads, filled + tokens + ROOM_TOKENS, width)
        if filled:
            whole[:, :, :filled] = held[:, :, left - filled :]
    whole[:, :, filled : filled + tokens] = more
    return whole[:, :, : filled + tokens]


def _with_room(held: torch.Tensor, tokens: int) -> torch.Tensor:
    rows, heads, filled, width = held.shape
    if tokens <= held.stride(1) // held.stride(2):
        return held.as_strided((rows, heads, tokens, width), held.stride())
    # Zeros: what is hidden from a row is multiplied by zero, and has to be a number.
    whole = held.new_zeros(rows, heads, tokens + ROOM_TOKENS, width)
    whole[:, :, :filled] = held
    return whole[:, :, :tokens]


def _stack(parts: Sequence[torch.Tensor], tokens: int) -> torch.Tensor:
    parts = [part for part in parts if len(part)]
    _, heads, _, width = parts[0].shape
    whole = parts[0].new_zeros(sum(map(len, parts)), heads, tokens + ROOM_TOKENS, width)
    for part, place in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        kept = min(tokens, part.shape[2])
        place[:, :, tokens - kept : tokens] = part[:, :, part.shape[2] - kept :]
    return whole[:, :, :tokens]
