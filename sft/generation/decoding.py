"""The decoding loop for many prompts: rows that have ended leave the batch, and waiting prompts take their places."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from sft.generation.cache import growing_cache, join
from sft.generation.checked_logits import CheckedLogits
from sft.generation.ends import AnswerEnds
from sft.generation.pace import Watch
from sft.generation.reading import alike, can_read_packed, read_packed

CHANGED_SHARE = 0.25
"""Share of the batch that has to have ended, or to find a place in it, to be worth the copy of everybody's cache."""

READ_TOKENS = 1024
"""Padded tokens of prompts that are read at once, where they are more than one prompt and cannot be read packed."""


Prepared = tuple[torch.Tensor, dict[str, Any]]
"""What `generate` of transformers hands to a decoding loop: the ids of prompts, and all else by name.

That is `logits_processor`, `stopping_criteria`, `generation_config`, and what the model is called with: the cache, the
attention mask (None: no padding), position ids where the model takes them, and more.
"""

Decoded = tuple[int, int, list[int]]
"""The number of a setting, the place of a prompt, and the new tokens that it was answered with under that setting."""


@dataclasses.dataclass
class Row:
    """A prompt under one setting, and the tokens of its answer so far."""

    place: int
    tokens: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False


@dataclasses.dataclass
class Group:
    """Rows that came together under one setting: to the library's processors and criteria, a batch of their own.

    ends: what ends an answer by its text.
    input_ids: (rows, prompt and answer tokens), padded on the left to the longest prompt, `prompt_tokens`.
    draws: (rows, answer tokens), a random number in [0, 1) for each token that a row may choose, from its own seed
        alone, so that what it chooses does not depend on the other rows; None: greedy.
    """

    setting: int
    ends: AnswerEnds
    rows: list[Row]
    input_ids: torch.Tensor
    prompt_tokens: int
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    draws: torch.Tensor | None

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose each row's next token, given `logits` (rows, vocabulary); returns which rows end with it."""
        scores = self.processors(self.input_ids, logits.float())
        if self.draws is None:
            tokens = scores.argmax(dim=-1, keepdim=True)
        else:
            # Rows that have ended may go on for a while, past the last number that was drawn for them.
            place = (self.input_ids.shape[1] - self.prompt_tokens) % self.draws.shape[1]
            tokens = drawn(scores, self.draws[:, place, None])
        self.input_ids = torch.cat([self.input_ids, tokens], dim=1)
        return self.criteria(self.input_ids, None)

    def drop_ended(self) -> None:
        """Go on with the other rows."""
        kept = staying(self.rows)
        self.rows = [self.rows[number] for number in kept]
        self.input_ids = self.input_ids[kept]
        self.draws = None if self.draws is None else self.draws[kept]
        for processor in self.processors:
            if hasattr(processor, "keep_rows"):
                processor.keep_rows(kept)


def drawn(scores: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """(rows, 1): each row's token under the softmax of its scores, (rows, vocabulary), given a draw, (rows, 1) in fp32.

    It is the first whose cumulative probability is above the draw's share of the whole, in fp64: a draw's 24 bits leave
    it below the whole, and sums do not depend on how many rows there are.
    """
    cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)


def staying(rows: Sequence[Row]) -> list[int]:
    """The places of those that have not ended."""
    return [number for number, row in enumerate(rows) if not row.ended]


@dataclasses.dataclass
class Batch:
    """The rows that are decoded together: those of its groups, one after another, with one cache and one mask.

    mask: (rows, cached tokens), 1 for tokens and 0 for padding, which is on the left.
    inputs: what else the model is called with, whatever the rows.

    Prompts that were just read are one that its groups, which are settings, have in common: cache and mask are each's.
    """

    groups: list[Group]
    cache: DynamicCache
    mask: torch.Tensor
    inputs: dict[str, Any]

    @property
    def rows(self) -> list[Row]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]

    def change(self, newcomers: Sequence["Batch"]) -> None:
        """Drop the rows that have ended and take in new ones; columns that are then padding in every row go, too."""
        rows = staying(self.rows)
        for group in self.groups:
            group.drop_ended()
        self.groups = [group for group in self.groups if group.rows]
        masks, caches = [self.mask[rows]] * bool(rows), []
        for new in newcomers:
            self.groups += new.groups
            masks += [new.mask] * len(new.groups)
            caches += [new.cache] * len(new.groups)
            self.inputs = new.inputs
        if masks:
            width = max(int(mask.sum(dim=1).max()) for mask in masks)
            self.mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])  # below 0, `pad` cuts
            join(self.cache, rows, caches, width)

    def step(self, model: PreTrainedModel) -> Iterator[Decoded]:
        """Read each row's last token and choose the next one; hands out the answers that end with it."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        position_ids = self.mask.sum(dim=1, keepdim=True) - 1
        inputs = model.prepare_inputs_for_generation(
            torch.cat([group.input_ids[:, -1:] for group in self.groups]),
            next_sequence_length=1,
            past_key_values=self.cache,
            attention_mask=self.mask,
            **{key: position_ids if key == "position_ids" else value for key, value in self.inputs.items()},
        )
        logits = model(**inputs, return_dict=True).logits[:, -1]
        yield from _choose(self.groups, logits.split([len(group.rows) for group in self.groups]))


@torch.inference_mode()
def decode_all(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    ends: Sequence[AnswerEnds],
    prepare: Callable[[Sequence[int], int], Prepared],
    new_tokens: int,
    budget: int,
    watch: Watch | None = None,
) -> Iterator[Decoded]:
    """Answer encoded prompts under each of several settings, `ends` of them; each answer comes as soon as it has ended.

    The longest prompts are first: memory runs out at once, if at all, the time that is left is not underestimated, and
    those that come later take no more room than those that left. The batch takes `budget` padded tokens at most (but
    one prompt always), `new_tokens` of them set aside for each answer. A prompt is read once for all its settings,
    which are rows of the same batch. `prepare` is given places of prompts and the number of a setting. `seeds` are the
    prompts' own, for settings that sample. `watch` is told what is done.
    """
    settings, packed = len(ends), can_read_packed(model)
    waiting = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    batch = Batch([], growing_cache(model.config), torch.empty(0, 0, dtype=torch.long, device=model.device), {})
    while waiting or batch.groups:
        rows = batch.rows
        going_on = [row.place for row in rows if not row.ended]
        longest = max(len(prompts[place]) for place in going_on or waiting[:1] or [0])
        room = max(settings, budget // (longest + new_tokens)) - len(going_on)
        coming = min(len(waiting), room // settings)
        if max(coming * settings, len(rows) - len(going_on)) >= CHANGED_SHARE * len(rows):
            newcomers: list[Batch] = []
            new = [prompts[place] for place in waiting[:coming]]
            for read_together in alike(new) if packed else batches(new, 0, READ_TOKENS):
                places = [waiting[number] for number in read_together]
                prepared = [prepare(places, setting) for setting in range(settings)]
                its_prompts = [prompts[place] for place in places] if packed else None
                read, logits = _read(model, its_prompts, places, prepared, seeds, ends)
                yield from _choose(read.groups, [logits] * settings)
                if watch:
                    watch([len(prompts[place]) for place in places], 0)
                newcomers.append(read)
            waiting = waiting[coming:]
            batch.change(newcomers)
        if batch.groups:
            tokens = len(staying(batch.rows))
            yield from batch.step(model)
            if watch:
                watch([], tokens)


def batches(prompts: Sequence[list[int]], new_tokens: int, budget: int) -> Iterator[list[int]]:
    """Positions of `prompts` in batches, longest first, at most `budget` padded tokens each (at least one row).

    The longest come first so that memory runs out at once, if at all, and the time that is left is not
    underestimated. A row takes the longest prompt's tokens plus `new_tokens`.
    """
    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    while order:
        rows = max(1, budget // (len(prompts[order[0]]) + new_tokens))
        yield order[:rows]
        order = order[rows:]


def _read(
    model: PreTrainedModel,
    prompts: Sequence[list[int]] | None,
    places: Sequence[int],
    prepared: Sequence[Prepared],
    seeds: Sequence[int],
    ends: Sequence[AnswerEnds],
) -> tuple[Batch, torch.Tensor]:
    """Read prompts once for all settings they are prepared under; with the logits, (rows, vocabulary), behind them.

    `prompts` are read packed; None: as they are prepared, padded.
    """
    groups = []
    for setting, (input_ids, inputs) in enumerate(prepared):
        own = ("logits_processor", "stopping_criteria", "generation_config")
        processors, criteria, config = (inputs.pop(name) for name in own)
        draws = None
        if config.do_sample:
            generators = [torch.Generator().manual_seed(seeds[place]) for place in places]
            draws = torch.stack([torch.rand(config.max_new_tokens, generator=each) for each in generators])
            draws = draws.to(input_ids.device)
        rows = [Row(place) for place in places]
        prompt_tokens = input_ids.shape[1]
        groups.append(Group(setting, ends[setting], rows, input_ids, prompt_tokens, processors, criteria, draws))
    # Of what the model is called with, all settings have the same.
    if prompts is None:
        logits = model._prefill(input_ids, config, inputs, is_first_iteration=True).logits[:, -1]
    else:
        logits = read_packed(model, prompts, inputs["past_key_values"])
    cache, mask = inputs.pop("past_key_values"), inputs.pop("attention_mask")
    if mask is None:
        mask = torch.ones_like(input_ids)
    return Batch(groups, cache, mask, inputs), logits


def _choose(groups: Sequence[Group], logits: Sequence[torch.Tensor]) -> Iterator[Decoded]:
    """Choose the next token of all groups' rows; hands out the answers that end with it.

    This waits for the GPU, once for all groups and for all that is asked of it. Raises UserError for logits that are
    not finite.
    """
    told = [group.choose(its_own) for group, its_own in zip(groups, logits, strict=True)]
    checks = [one for group in groups for one in group.processors if isinstance(one, CheckedLogits)]
    told += [one.found[None] for one in checks if one.found is not None]
    tokens = [group.input_ids[:, -1] for group in groups]
    read = torch.cat([*tokens, *told]).tolist()
    rows = [(group, row) for group in groups for row in group.rows]
    chosen, ended, broken = read[: len(rows)], read[len(rows) : 2 * len(rows)], read[2 * len(rows) :]
    if any(broken):
        for one in checks:
            one.check()
    for (group, row), token, has_ended in zip(rows, chosen, ended, strict=True):
        if not row.ended:
            row.tokens.append(token)
            row.ended = bool(has_ended) or group.ends.complete(row.tokens)
            if row.ended:
                yield group.setting, row.place, row.tokens
