"""Prompts are read one after another, without padding, and what several of them begin with is read once."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from sft.generation.batch.attention import attending
from sft.model.attention.documents import packed_mask, packing_obstacle
from sft.model.attention.shared_prefix import add_prefixes, common_tokens, documents_of

PACKED_TOKENS = 2048
"""Tokens that are read at once, what prompts have in common counted once, where they are more than one prompt."""
PACKED_PROMPTS = 24
"""The most prompts that are read at once: for 262,000 words, the scores of more of them in fp32 take memory of a size
that glibc fetches from the system each time, which takes longer than all that is done with them."""


def alike(prompts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Positions of `prompts` that are best read at once: those that begin alike."""
    together: list[int] = []
    tokens = 0
    for position in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt = prompts[position]
        shared = common_tokens(prompts[together[-1]], prompt, len(prompt)) if together else 0
        if together and (tokens + len(prompt) - shared > PACKED_TOKENS or len(together) == PACKED_PROMPTS):
            yield together
            together, tokens, shared = [], 0, 0
        together.append(position)
        tokens += len(prompt) - shared
    if together:
        yield together


def can_read_packed(model: PreTrainedModel) -> bool:
    """Whether `read_packed` is for this model: a CPU's, that packed prompts are proved exact for."""
    plain = model.config._attn_implementation == "sdpa"
    return plain and model.device.type == "cpu" and packing_obstacle(model.config) is None


def read_packed(model: PreTrainedModel, prompts: Sequence[list[int]], cache: DynamicCache) -> torch.Tensor:
    """Read encoded prompts into an empty cache, and return the logits behind them, (prompts, vocabulary).

    The cache is then what it would be had they been read padded on the left, but for what padding left in it.
    """
    documents = documents_of(prompts, limit=max(map(len, prompts)))
    tokens = [document.tokens for document in documents]
    starts = list(accumulate(map(len, tokens), initial=0))
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([[token for some in tokens for token in some]]),
        "position_ids": torch.cat([torch.arange(len(some)) for some in tokens])[None],
    }
    add_prefixes(batch, documents)
    ends = torch.tensor(starts[-len(prompts) :]) - 1
    with attending(model, "packed_documents"):
        mark = packed_mask(model.config, batch["input_ids"])
        outputs = model(**batch, attention_mask=mark, past_key_values=cache, logits_to_keep=ends, return_dict=True)
    places = []
    for document, start in list(zip(documents, starts, strict=False))[-len(prompts) :]:
        beginning = 0 if document.prefix is None else starts[document.prefix]
        own = torch.arange(start, start + len(document.tokens))
        places.append(torch.cat([torch.arange(beginning, beginning + document.taken), own]))
    index = pad_sequence(places, batch_first=True, padding_side="left")
    for layer in cache.layers:
        layer.keys, layer.values = (states[0][:, index].transpose(0, 1) for states in (layer.keys, layer.values))
    return outputs.logits[0]
