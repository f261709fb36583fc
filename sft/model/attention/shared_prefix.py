"""Rows of a bin that begin alike go through the model with that beginning once.

Every alpaca prompt opens with the same sentences, and chat prompts with the same system message: an eighth of
dolly-ja's tokens. In a causal model their hidden states depend on nothing that follows, so one copy serves all rows. It
stands in the bin as a document of its own, and counts in the loss as often as rows have it. A row that shares it keeps,
of the common tokens, only the last one, from which its first own token is predicted; to attention it is a whole row
again (`whole_rows`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

Prefixes = list[tuple[int | None, int, int]]
"""For each document: the number of its prefix, the tokens of it that are taken, and the document's own tokens."""

LIMIT = 256
"""Tokens of a common beginning that are looked at, of rows that are trained on."""


class Document(NamedTuple):
    """Consecutive tokens of a bin that belong to one row, or to the beginning of several.

    Args:
        tokens: ids with their labels, or whatever its row is made of.
        prefix: the number of the document that its row begins with, None for one that stands alone.
        taken: how many tokens of `prefix` stand before it.
        copies: how many rows have it.
    """

    tokens: list[Any]
    prefix: int | None = None
    taken: int = 0
    copies: int = 1


def documents_of(rows: Sequence[list[Any]], limit: int = LIMIT) -> list[Document]:
    """What rows of ids with their labels become: common beginnings first, then the rows in their order.

    `limit` is how many tokens of a common beginning are looked at, and how deep `_groups` may have to go.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    common = [common_tokens(rows[one], rows[other], limit) for one, other in pairwise(order)]
    prefixes: list[Document] = []
    parts = {}
    for start, end in _groups(common, 0, len(rows))[1]:
        length = min(common[start : end - 1])
        for row in order[start:end]:
            parts[row] = Document(rows[row][length - 1 :], len(prefixes), length - 1)
        prefixes.append(Document(rows[order[start]][:length], copies=end - start))
    return prefixes + [parts.get(number, Document(row)) for number, row in enumerate(rows)]


def common_tokens(one: list[Any], other: list[Any], limit: int) -> int:
    """Tokens that both begin with, leaving each at least one of its own."""
    most = min(len(one), len(other), limit) - 1
    return next((place for place in range(most) if one[place] != other[place]), most)


def _groups(common: list[int], start: int, end: int) -> tuple[int, list[tuple[int, int]]]:
    """A division of the sorted rows from `start` to `end` into groups: the tokens that it saves, and the groups.

    All of them are one group, or those that share more are divided in their turn, whichever saves more. `common` holds
    the tokens that each row shares with the next one. Rows in no group share too little.
    """
    if end - start < 2:
        return 0, []
    shared = min(common[start : end - 1])
    saved, groups = (end - start - 1) * (shared - 1) - 1, [(start, end)]
    borders = [start, *(n + 1 for n in range(start, end - 1) if common[n] == shared), end]
    parts = [_groups(common, *part) for part in pairwise(borders)]
    smaller = sum(part[0] for part in parts)
    if smaller >= max(saved, 0):
        return smaller, [group for part in parts for group in part[1]]
    return saved, groups


def add_prefixes(batch: dict[str, Any], documents: Sequence[Document]) -> None:
    """Make a batch of packed documents, as TRL's collator does, one whose documents may have a prefix.

    Positions go on from the prefix, and attention's borders and lengths are those of whole rows (`whole_rows`);
    `shared_prefixes` goes to attention.
    """
    lengths, taken = torch.tensor([(len(d.tokens), d.taken) for d in documents]).T
    batch["position_ids"] = batch["position_ids"] + taken.repeat_interleave(lengths)
    batch["shared_prefixes"] = [(d.prefix, d.taken, len(d.tokens)) for d in documents]
    whole = lengths + taken
    batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = pad(whole.cumsum(0), (1, 0)).to(torch.int32)
    batch["max_length_q"] = batch["max_length_k"] = int(whole.max())
    batch["document_lengths"] = whole.tolist()


def whole_rows(states: torch.Tensor, prefixes: Prefixes) -> torch.Tensor:
    """(batch, heads, tokens, size) of documents → of each document behind its prefix."""
    own = states.split([length for _, _, length in prefixes], dim=2)
    pieces = []
    for part, (prefix, taken, _) in zip(own, prefixes, strict=True):
        pieces += [part] if prefix is None else [own[prefix][:, :, :taken], part]
    return torch.cat(pieces, dim=2)


def own_tokens(attended: torch.Tensor, prefixes: Prefixes) -> torch.Tensor:
    """(batch, tokens, heads, size) of whole rows → of the documents alone."""
    sizes = [size for _, taken, length in prefixes for size in (taken, length)]
    return torch.cat(attended.split(sizes, dim=1)[1::2], dim=1)
