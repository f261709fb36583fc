"""How a model attends while it answers: prompts packed, and several tokens a row at once."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

SEVERAL_TOKENS = "several_tokens"
"""PyTorch's attention under a mask. On transformers' way to it, heads that share keys and values get copies of them."""


@contextlib.contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Within it, `model` attends by this implementation."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def _several_tokens(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(rows, heads, tokens, size) with a mask of (rows, 1, tokens, keys) → (rows, tokens, heads, size)."""
    rows, heads, tokens, size = query.shape
    sharing = heads // key.shape[1]  # heads that share keys attend as one with so many times the tokens
    attended = scaled_dot_product_attention(
        query.reshape(rows, key.shape[1], sharing * tokens, size), key, value, attention_mask.repeat(1, 1, sharing, 1),
        scale=scaling,
    )  # fmt: skip
    return attended.view(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(SEVERAL_TOKENS, _several_tokens)
