"""The decoding loop for many prompts: rows that have ended leave the batch, and waiting prompts take their places."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from sft.generation.cache import growing_cache, join

CHANGED_SHARE = 0.25
"""Share of the batch that has to have ended, or to find a place in it, to be worth the copy of everybody's cache."""

READ_TOKENS = 1024
"""Padded tokens of prompts that are read at once, where they are more than one prompt."""


class DecodingInputs(NamedTuple):
    """What `generate` of transformers hands to a decoding loop.

    `model_kwargs` hold the cache, the attention mask (None: no padding), position ids where the model takes them, and
    what else it is called with.
    """

    input_ids: torch.Tensor
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    config: GenerationConfig
    model_kwargs: dict[str, Any]


class Decoded(NamedTuple):
    """The new tokens that the prompt at `place` was answered with under the setting of this number."""

    setting: int
    place: int
    tokens: list[int]


@dataclasses.dataclass
class Row:
    """A prompt under one setting."""

    place: int
    generator: torch.Generator | None
    """Its own randomness, so that what it draws does not depend on the other rows; None: greedy."""
    ended: bool = False


@dataclasses.dataclass
class Group:
    """Rows that came together under one setting: to the library's processors and criteria, a batch of their own.

    input_ids: (rows, prompt and answer tokens), padded on the left to the longest prompt, `prompt_tokens`.
    """

    setting: int
    rows: list[Row]
    input_ids: torch.Tensor
    prompt_tokens: int
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose each row's next token, given `logits` (rows, vocabulary); returns which rows end with it."""
        scores = self.processors(self.input_ids, logits.float())
        if self.rows[0].generator is None:
            tokens = scores.argmax(dim=-1, keepdim=True)
        else:
            odds = zip(scores.softmax(dim=-1), self.rows, strict=True)
            tokens = torch.stack([torch.multinomial(each, 1, generator=row.generator) for each, row in odds])
        self.input_ids = torch.cat([self.input_ids, tokens], dim=1)
        return self.criteria(self.input_ids, None)

    def drop_ended(self) -> None:
        """Go on with the other rows."""
        kept = staying(self.rows, self.input_ids.device)
        self.rows = [row for row in self.rows if not row.ended]
        self.input_ids = self.input_ids[kept]
        for processor in self.processors:
            if hasattr(processor, "keep_rows"):
                processor.keep_rows(kept)


def staying(rows: Sequence[Row], device: torch.device) -> torch.Tensor:
    """(rows,): which have not ended."""
    return torch.tensor([not row.ended for row in rows], dtype=torch.bool, device=device)


class Batch:
    """The rows that are decoded together: those of its groups, one after another, with one cache and one mask.

    mask: (rows, cached tokens), 1 for tokens and 0 for padding, which is on the left.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.groups: list[Group] = []
        self.cache = growing_cache(model.config)
        self.mask = torch.empty(0, 0, dtype=torch.long, device=model.device)
        self.inputs: dict[str, Any] = {}

    @property
    def rows(self) -> list[Row]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]

    def change(self, newcomers: Sequence["Newcomers"]) -> None:
        """Drop the rows that have ended and take in new ones; columns that are then padding in every row go, too."""
        rows = staying(self.rows, self.mask.device)
        for group in self.groups:
            group.drop_ended()
        self.groups = [*(group for group in self.groups if group.rows), *(new.group for new in newcomers)]
        masks = [self.mask[rows]] * bool(rows.any()) + [new.mask for new in newcomers]
        if masks:
            width = max(int(mask.sum(dim=1).max()) for mask in masks)
            self.mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])  # below 0, `pad` cuts
            join(self.cache, rows, [new.cache for new in newcomers], width)
        for new in newcomers:
            self.inputs = new.inputs

    def step(self) -> Iterator[Decoded]:
        """Read each row's last token and choose the next one; hands out the answers that end with it."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        position_ids = self.mask.sum(dim=1, keepdim=True) - 1
        inputs = self.model.prepare_inputs_for_generation(
            torch.cat([group.input_ids[:, -1:] for group in self.groups]),
            next_sequence_length=1,
            past_key_values=self.cache,
            attention_mask=self.mask,
            **{key: position_ids if key == "position_ids" else value for key, value in self.inputs.items()},
        )
        logits = self.model(**inputs, return_dict=True).logits[:, -1]
        yield from _choose(self.groups, logits.split([len(group.rows) for group in self.groups]))


class Newcomers(NamedTuple):
    """A group whose prompts were read; `inputs` are what else the model is called with, whatever the rows."""

    group: Group
    cache: DynamicCache
    mask: torch.Tensor
    inputs: dict[str, Any]


@torch.inference_mode()
def decode_all(
    model: PreTrainedModel,
    lengths: Sequence[int],
    seeds: Sequence[int],
    settings: int,
    prepare: Callable[[Sequence[int], int], DecodingInputs],
    new_tokens: int,
    budget: int,
) -> Iterator[Decoded]:
    """Answer prompts of `lengths` tokens under each of so many settings; each answer comes as soon as it has ended.

    The longest prompts are first: memory runs out at once, if at all, the time that is left is not underestimated, and
    those that come later take no more room than those that left. The batch takes `budget` padded tokens at most (but
    one prompt always), `new_tokens` of them set aside for each answer. A prompt is read once for all its settings,
    which are rows of the same batch. `prepare` is given places of prompts and the number of a setting. `seeds` are the
    prompts' own, for settings that sample.
    """
    waiting = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batch = Batch(model)
    while waiting or batch.groups:
        rows = batch.rows
        going_on = [row.place for row in rows if not row.ended]
        longest = max(lengths[place] for place in going_on or waiting[:1] or [0])
        room = max(settings, budget // (longest + new_tokens)) - len(going_on)
        coming = min(len(waiting), room // settings)
        if max(coming * settings, len(rows) - len(going_on)) >= CHANGED_SHARE * len(rows):
            newcomers: list[Newcomers] = []
            for places in _read_together(waiting[:coming], lengths):
                prepared = [prepare(places, setting) for setting in range(settings)]
                read, logits = _read(model, places, prepared, seeds)
                yield from _choose([new.group for new in read], [logits] * settings)
                newcomers += read
            waiting = waiting[coming:]
            batch.change(newcomers)
        if batch.groups:
            yield from batch.step()


def _read_together(places: Sequence[int], lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    """`places`, longest prompt first, in pieces of READ_TOKENS padded tokens at most or one prompt."""
    while places:
        rows = max(1, READ_TOKENS // lengths[places[0]])
        yield places[:rows]
        places = places[rows:]


def _read(
    model: PreTrainedModel, places: Sequence[int], prepared: Sequence[DecodingInputs], seeds: Sequence[int]
) -> tuple[list[Newcomers], torch.Tensor]:
    """Read prompts once for all settings they are prepared under; with the logits, (rows, vocabulary), behind them."""
    first = prepared[0]
    outputs = model._prefill(first.input_ids, first.config, first.model_kwargs, is_first_iteration=True)
    inputs = dict(first.model_kwargs)
    cache, mask = inputs.pop("past_key_values"), inputs.pop("attention_mask")
    if mask is None:
        mask = torch.ones_like(first.input_ids)
    newcomers = []
    for setting, (input_ids, processors, criteria, config, _) in enumerate(prepared):
        rows = [
            Row(place, torch.Generator(model.device).manual_seed(seeds[place]) if config.do_sample else None)
            for place in places
        ]
        group = Group(setting, rows, input_ids, input_ids.shape[1], processors, criteria)
        newcomers.append(Newcomers(group, cache, mask, inputs))
    return newcomers, outputs.logits[:, -1]


def _choose(groups: Sequence[Group], logits: Sequence[torch.Tensor]) -> Iterator[Decoded]:
    """Choose the next token of all groups' rows; hands out the answers that end with it."""
    ended = torch.cat([group.choose(its_own) for group, its_own in zip(groups, logits, strict=True)]).tolist()
    for group in groups:
        for number, row in enumerate(group.rows):
            if ended.pop(0) and not row.ended:
                row.ended = True
                yield Decoded(group.setting, row.place, group.input_ids[number, group.prompt_tokens :].tolist())
