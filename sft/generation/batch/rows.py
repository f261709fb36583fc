"""Rows of a batch: what each has said so far, and how it chooses its next tokens."""

import dataclasses
from collections.abc import Sequence

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from sft.generation.batch.drafts import MOST_DRAFTS, Lookup
from sft.generation.checked_logits import CheckedLogits
from sft.generation.ends import AnswerEnds
from sft.generation.penalty import ScopedRepetitionPenalty

PART = 4096
"""Scores among which a largest one is looked for at once."""

BY_ROW = (
    CheckedLogits, ScopedRepetitionPenalty, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
    MinPLogitsWarper, TypicalLogitsWarper, EpsilonLogitsWarper, EtaLogitsWarper,
)  # fmt: skip
"""Processors to which a row's answer may be filled up with tokens that are in it: no other is given guesses."""


@dataclasses.dataclass
class Row:
    """A prompt under one setting, and the tokens of its answer so far.

    lookup: guesses what comes next; None: nobody does.
    first: the column of the cache that the prompt begins at.
    """

    place: int
    prompt_tokens: int
    lookup: Lookup | None
    tokens: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False
    first: int = 0

    @property
    def length(self) -> int:
        """Tokens of it that are in the cache: all but the last one."""
        return self.prompt_tokens + len(self.tokens) - 1

    @property
    def end(self) -> int:
        """The column of the cache that the last token goes to."""
        return self.first + self.length

    def append(self, token: int) -> None:
        """One more token has been chosen."""
        self.tokens.append(token)
        if self.lookup:
            self.lookup.append(token)

    def drafts(self) -> list[int]:
        """What may come next; none, too, where the answer has ended."""
        return self.lookup.drafts(MOST_DRAFTS) if self.lookup and not self.ended else []


@dataclasses.dataclass
class Group:
    """Rows that came together under one setting: to the library's processors, a batch of their own.

    ends: what ends an answer by its text, and `config`, by its tokens.
    prompts: (rows, tokens), padded on the left.
    draws: (rows, answer tokens), a random number in [0, 1) for each token that a row may choose, from its own seed
        alone, so that what it chooses does not depend on the other rows; None: greedy.
    """

    setting: int
    ends: AnswerEnds
    rows: list[Row]
    prompts: torch.Tensor
    processors: LogitsProcessorList
    config: GenerationConfig
    draws: torch.Tensor | None

    @property
    def check(self) -> CheckedLogits:
        """The one among its processors."""
        return next(one for one in self.processors if isinstance(one, CheckedLogits))

    def choose(self, logits: torch.Tensor, drafts: Sequence[list[int]]) -> torch.Tensor:
        """Choose what follows each row's last token and each of its drafts: (tokens,).

        `logits` are (tokens, vocabulary), those of a row's one after another.
        """
        places = [(number, place) for number, its in enumerate(drafts) for place in range(1 + len(its))]
        owners = [number for number, _ in places]
        answers = [self.rows[number].tokens + drafts[number][:place] for number, place in places]
        longest = max(map(len, answers))
        # Shorter ones are filled up with what has occurred in them.
        filled = self.prompts.new_tensor([answer + answer[-1:] * (longest - len(answer)) for answer in answers])
        scores = logits.float()
        for processor in self.processors:
            of_rows = getattr(processor, "of_rows", None)
            known = of_rows(owners) if of_rows else processor
            scores = known(torch.cat([self.prompts[owners], filled], dim=1), scores)
        if self.draws is None:
            return largest(scores)
        # Drafts may go on past the last number that was drawn for a row; those are not kept.
        numbers = self.prompts.new_tensor([len(answer) % self.draws.shape[1] for answer in answers])
        return drawn(scores, self.draws[owners].gather(1, numbers[:, None]))[:, 0]

    def has_ended(self, row: Row) -> bool:
        """Whether a row's answer ends with its last token."""
        by_token = row.tokens[-1] == self.config.eos_token_id or len(row.tokens) == self.config.max_new_tokens
        return by_token or self.ends.complete(row.tokens)

    def drop_ended(self) -> None:
        """Go on with the other rows."""
        kept = [number for number, row in enumerate(self.rows) if not row.ended]
        self.rows = [self.rows[number] for number in kept]
        self.prompts = self.prompts[kept]
        self.draws = None if self.draws is None else self.draws[kept]
        of_rows = [getattr(one, "of_rows", None) for one in self.processors]
        self.processors = [of(kept) if of else one for one, of in zip(self.processors, of_rows, strict=True)]


def largest(scores: torch.Tensor) -> torch.Tensor:
    """(rows,): the first of each row's largest scores, (rows, vocabulary).

    A CPU finds a largest value fast, and its place slowly (`argmax` takes four times as long): the place is looked for
    in the part that it is in.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=1)
    parts = list(scores.split(PART, dim=1))
    part = torch.stack([part.amax(dim=1) for part in parts], dim=1).argmax(dim=1)
    places = (part[:, None] * PART + torch.arange(PART, device=scores.device)).clamp_(max=scores.shape[1] - 1)
    return part * PART + scores.gather(1, places).argmax(dim=1)


def drawn(scores: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """(rows, 1): each row's token under the softmax of its scores, (rows, vocabulary), given a draw, (rows, 1) in fp32.

    It is the first whose cumulative probability is above the draw's share of the whole, in fp64: a draw's 24 bits leave
    it below the whole, and sums do not depend on how many rows there are.
    """
    cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
