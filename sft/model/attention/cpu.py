"""Causal attention of one document in bf16 on a CPU: forward in PyTorch's kernel, back in matrix products over blocks,
which there take less time than its own way back, and have scores in fp32 (see docs/performance.md)."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from sft.model.attention.window import window_mask

BLOCK = 256
"""Queries of a block, about: smaller ones compute less of what is masked, larger ones make better products."""
STEP = 32
"""Documents and blocks are a multiple of it long. Kernels are compiled and kept for each length there is."""


def can_attend(query: torch.Tensor) -> bool:
    """Whether it is for these queries, and tensors like them."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    """Causal attention.

    Args:
        query: (heads, tokens, size).
        key: (heads, or a divisor of them, tokens, size); each serves as many heads of queries in a row.
        value: as `key`.
        scaling: what scores are multiplied by.
        window: tokens that a token sees, itself included; None: all before it.

    Returns:
        (tokens, heads, size).
    """
    return _Attention.apply(query, key, value, scaling, window)


class _Block(NamedTuple):
    """Queries from `start` to `end`, and the keys that they see: from `first` to `end`."""

    start: int
    end: int
    first: int


def _blocks(length: int, window: int | None) -> Iterator[_Block]:
    count = max(1, round(length / BLOCK))
    size = -(-length // count // STEP) * STEP
    for start in range(0, length, size):
        first = 0 if window is None else max(0, start + 1 - window) // STEP * STEP
        yield _Block(start, min(length, start + size), first)


class _Attention(torch.autograd.Function):
    """Probabilities are computed again in the backward pass, from each token's ln Σ exp(score), so that no square is
    kept."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        heads, length, size = query.shape
        query, key, value = (_padded(states) for states in (query, key, value))  # which nothing in the document sees
        mask = _hiding(query.shape[1], window, query.dtype)
        groups = heads // len(key)
        attended, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query[None], *(states.repeat_interleave(groups, 0)[None] for states in (key, value)),
            is_causal=mask is None, attn_mask=mask, scale=scaling,
        )  # fmt: skip
        grouped = (len(key), groups, query.shape[1])
        query, attended, total = query.view(*grouped, size), attended.reshape(*grouped, size), total.reshape(grouped)
        ctx.save_for_backward(query, key, value, attended, total)
        ctx.scaling, ctx.window = scaling, window
        return attended.view(heads, -1, size)[:, :length].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        query, key, value, attended, total = ctx.saved_tensors
        length, heads, size = gradient.shape
        gradient = _padded(gradient.transpose(0, 1)).reshape(query.shape)
        exact = total.dtype  # fp32 at least
        mean = (gradient.to(exact) * attended).sum(dim=-1)
        blocks = list(_blocks(query.shape[2], ctx.window))
        of_query = torch.empty_like(query)
        # Of what several blocks see, the sum is exact.
        summed = exact if len(blocks) > 1 else query.dtype
        of_key, of_value = (torch.zeros_like(states, dtype=summed) for states in (key, value))
        for block in blocks:
            rows, seen = slice(block.start, block.end), slice(block.first, block.end)
            of_rows, queries, keys = _below(gradient[:, :, rows]), _below(query[:, :, rows]), key[:, seen]
            # Scores are in fp32: bf16 rounds those of 8 to 16 by up to 1/32, and a probability is as wrong.
            scores = _less(queries.to(exact) * ctx.scaling, keys.to(exact), total[:, :, rows])
            probabilities = _hidden(scores.exp_().to(query.dtype), block, ctx.window)
            of_scores = _less(of_rows, value[:, seen], mean[:, :, rows]).mul_(probabilities)
            of_query[:, :, rows] = _scaled(of_scores, keys, ctx.scaling).view_as(of_query[:, :, rows])
            of_key[:, seen] += _scaled(of_scores.transpose(1, 2), queries, ctx.scaling)
            of_value[:, seen] += probabilities.transpose(1, 2) @ of_rows
        of_query = of_query.view(heads, -1, size)
        of_key, of_value = of_key.to(key.dtype), of_value.to(value.dtype)
        return of_query[:, :length], of_key[:, :length], of_value[:, :length], None, None


def _scaled(one: torch.Tensor, other: torch.Tensor, scaling: float) -> torch.Tensor:
    """scaling · one @ other, rounded once."""
    return torch.baddbmm(one.new_zeros(1, 1, 1), one, other, beta=0, alpha=scaling)


def _less(one: torch.Tensor, other: torch.Tensor, less: torch.Tensor) -> torch.Tensor:
    """one @ otherᵀ − less, rounded once: (batch, rows, columns); `less` has one number a row, in fp32 at least.

    It is two more columns of `one`, which together hold 16 bits of it where the type is bf16.
    """
    wanted = -less.reshape(len(one), -1, 1)
    high = wanted.to(one.dtype)
    one = torch.cat([one, high, (wanted - high).to(one.dtype)], dim=-1)
    other = torch.cat([other, other.new_ones(*other.shape[:2], 2)], dim=-1)
    return one @ other.transpose(1, 2)


def _below(states: torch.Tensor) -> torch.Tensor:
    """(keys' heads, query heads a key's, tokens, size) → queries of heads that share a key below each other."""
    return states.reshape(len(states), -1, states.shape[-1])


def _hidden(probabilities: torch.Tensor, block: _Block, window: int | None) -> torch.Tensor:
    """(keys' heads, query heads a key's × tokens, keys), 0 where a token does not see another."""
    rows, seen = block.end - block.start, block.end - block.first
    heads = probabilities.view(-1, rows, seen).tril_(seen - rows)
    if window is not None and seen > window:
        heads.triu_(seen - rows - window + 1)
    return probabilities


@functools.lru_cache(maxsize=2)  # layers of a kind follow each other
def _hiding(length: int, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
    """(tokens, tokens), −inf where a token does not see another; None where the order alone decides."""
    seen = window_mask(length, window, torch.device("cpu"))
    return None if seen is None else torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)


def _padded(states: torch.Tensor) -> torch.Tensor:
    return pad(states, (0, 0, 0, -states.shape[1] % STEP))
