"""Causal attention of one document in bf16 on a CPU, with matrix products over blocks: there, PyTorch's kernel takes
longer (see docs/performance.md)."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

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
    """Probabilities are computed again in the backward pass, so that no square is kept."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        heads, length, size = query.shape
        query, key, value = (_padded(states) for states in (query, key, value))  # which nothing in the document sees
        query = query.view(len(key), -1, *query.shape[1:])
        attended, largest = torch.empty_like(query), query.new_empty(query.shape[:3])
        for block in _blocks(query.shape[2], window):
            rows, seen = slice(block.start, block.end), slice(block.first, block.end)
            queries, keys = _below(query[:, :, rows]), key[:, seen].transpose(1, 2)
            scores = _masked(_product(queries, keys, scaling), block, window)
            largest[:, :, rows] = scores.amax(dim=-1).view_as(largest[:, :, rows])
            probabilities = _probabilities(queries, keys, largest[:, :, rows], block, scaling, window)
            attended[:, :, rows] = (probabilities @ value[:, seen]).view_as(attended[:, :, rows])
        ctx.save_for_backward(query, key, value, attended, largest)
        ctx.scaling, ctx.window = scaling, window
        return attended.view(heads, -1, size)[:, :length].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        query, key, value, attended, largest = ctx.saved_tensors
        length, heads, size = gradient.shape
        gradient = _padded(gradient.transpose(0, 1)).reshape(query.shape)
        of_query = torch.empty_like(query)
        # Of what several blocks see, the sum is in fp32 at least.
        of_key, of_value = (
            torch.zeros_like(states, dtype=torch.promote_types(states.dtype, torch.float32)) for states in (key, value)
        )
        for block in _blocks(query.shape[2], ctx.window):
            rows, seen = slice(block.start, block.end), slice(block.first, block.end)
            of_rows, queries, keys = _below(gradient[:, :, rows]), _below(query[:, :, rows]), key[:, seen]
            probabilities = _probabilities(
                queries, keys.transpose(1, 2), largest[:, :, rows], block, ctx.scaling, ctx.window
            )
            mean = (of_rows * _below(attended[:, :, rows])).sum(dim=-1, keepdim=True)
            of_scores = _product(of_rows, value[:, seen].transpose(1, 2), less=mean)
            of_scores *= probabilities
            of_query[:, :, rows] = _product(of_scores, keys, ctx.scaling).view_as(of_query[:, :, rows])
            of_key[:, seen] += _product(of_scores.transpose(1, 2), queries, ctx.scaling)
            of_value[:, seen] += probabilities.transpose(1, 2) @ of_rows
        of_query = of_query.view(heads, -1, size)
        of_key, of_value = of_key.to(key.dtype), of_value.to(value.dtype)
        return of_query[:, :length], of_key[:, :length], of_value[:, :length], None, None


def _product(
    one: torch.Tensor, other: torch.Tensor, scaling: float = 1.0, less: torch.Tensor | None = None
) -> torch.Tensor:
    """scaling · one @ other − less, (batch, rows, columns), rounded once; `less`, (batch, rows, 1), None: nothing."""
    if less is None:
        return torch.baddbmm(one.new_zeros(1, 1, 1), one, other, beta=0, alpha=scaling)
    return torch.baddbmm(less.expand(-1, -1, other.shape[-1]), one, other, beta=-1, alpha=scaling)


def _padded(states: torch.Tensor) -> torch.Tensor:
    return pad(states, (0, 0, 0, -states.shape[1] % STEP))


def _below(states: torch.Tensor) -> torch.Tensor:
    """(keys' heads, query heads a key's, tokens, size) → queries of heads that share a key below each other."""
    return states.reshape(len(states), -1, states.shape[-1])


def _masked(scores: torch.Tensor, block: _Block, window: int | None) -> torch.Tensor:
    """(keys' heads, query heads a key's × tokens, keys), with −inf where a token does not see another."""
    rows, seen = block.end - block.start, block.end - block.first
    heads = scores.view(-1, rows, seen)
    # What comes after a token lies among the last keys; what has left its window, among the first.
    heads[:, :, -rows:] += _later(rows, scores.dtype)
    if window is not None and seen > window:
        heads += scores.new_full((rows, seen), -torch.inf).tril_(seen - rows - window)
    return scores


@functools.cache  # there are as many as sizes of blocks
def _later(rows: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((rows, rows), -torch.inf, dtype=dtype).triu_(1)


def _probabilities(
    queries: torch.Tensor,
    keys: torch.Tensor,
    largest: torch.Tensor,
    block: _Block,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """What each token of a block attends to: (keys' heads, query heads a key's × tokens, keys).

    `queries`, (keys' heads, query heads a key's × tokens, size), times `keys`, (keys' heads, size, keys), less the
    `largest` score of each token before they are rounded: of 16 bits, those that count then lose least.
    """
    scores = _product(queries, keys, scaling, less=largest.reshape(len(keys), -1, 1))
    return _masked(scores, block, window).softmax(dim=-1)
