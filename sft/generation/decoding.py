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
class Group:
    """Rows that came together under one setting: to the library's processors and criteria, a batch of their own.

    input_ids: (rows, prompt and answer tokens), padded on the left to the longest prompt, `prompt_tokens`.
    generators: each row's own randomness, so that what it draws does not depend on the others; None: greedy.
    """

    setting: int
    places: list[int]
    ended: list[bool]
    input_ids: torch.Tensor
    prompt_tokens: int
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    generators: list[torch.Generator] | None

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose each row's next token, given `logits` (rows, vocabulary); returns which rows end with it."""
        scores = self.processors(self.input_ids, logits.float())

        if self.generators is None:
            tokens = scores.argmax(dim=-1, keepdim=True)
        else:
            odds = zip(scores.softmax(dim=-1), self.generators, strict=True)
            tokens = torch.stack([torch.multinomial(row, 1, generator=generator) for row, generator in odds])
        self.input_ids = torch.cat([self.input_ids, tokens], dim=1)
        return self.criteria(self.input_ids, None)

    def drop_ended(self) -> None:
        """Go on with the other rows."""
        rows = [row for row, ended in enumerate(self.ended) if not ended]
        kept = torch.tensor(rows, dtype=torch.long, device=self.input_ids.device)
        self.places = [self.places[row] for row in rows]
        self.ended = [False] * len(rows)
        self.input_ids = self.input_ids[kept]
        self.generators = self.generators and [self.generators[row] for row in rows]
        for processor in self.processors:
            if hasattr(processor, "keep_rows"):
                processor.keep_rows(kept)


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

    def staying(self) -> list[int]:
        """The places of the prompts whose answers have not ended."""
        rows = (pair for group in self.groups for pair in zip(group.places, group.ended, strict=True))
        return [place for place, ended in rows if not ended]

    def change(self, newcomers: Sequence["Newcomers"]) -> None:
        """Drop the rows that have ended and take in new ones; columns that are then padding in every row go, too."""
        ended = [ended for group in self.groups for ended in group.ended]
        rows = torch.tensor(
            [row for row, end in enumerate(ended) if not end], dtype=torch.long, device=self.mask.device
        )
        for group in self.groups:
            group.drop_ended()
        self.groups = [*(group for group in self.groups if group.places), *(new.group for new in newcomers)]
        masks = [self.mask[rows], *(new.mask for new in newcomers)] if len(rows) else [new.mask for new in newcomers]
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
        yield from _choose(self.groups, logits.split([len(group.places) for group in self.groups]))


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
        staying = batch.staying()
        rows = sum(len(group.places) for group in batch.groups)
        longest = max(lengths[place] for place in staying or waiting[:1] or [0])
        room = max(settings, budget // (longest + new_tokens)) - len(staying)
        coming = min(len(waiting), room // settings)
        if max(coming * settings, rows - len(staying)) >= CHANGED_SHARE * rows:
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
    rows, tokens = first.input_ids.shape
    inputs = dict(first.model_kwargs)
    cache, mask = inputs.pop("past_key_values"), inputs.pop("attention_mask")
    if mask is None:
        mask = torch.ones_like(first.input_ids)
    newcomers = []
    for setting, its_own in enumerate(prepared):
        generators = None
        if its_own.config.do_sample:
            generators = [torch.Generator(model.device).manual_seed(seeds[place]) for place in places]
        group = Group(
            setting, list(places), [False] * rows, its_own.input_ids, tokens, its_own.processors, its_own.criteria,
            generators,
        )  # fmt: skip
        newcomers.append(Newcomers(group, cache, mask, inputs))
    return newcomers, outputs.logits[:, -1]


def _choose(groups: Sequence[Group], logits: Sequence[torch.Tensor]) -> Iterator[Decoded]:
    """Choose the next token of all groups' rows; hands out the answers that end with it."""
    ended = torch.cat([group.choose(its_own) for group, its_own in zip(groups, logits, strict=True)]).tolist()
    for group in groups:
        for row, place in enumerate(group.places):
            if ended.pop(0) and not group.ended[row]:
                group.ended[row] = True
                yield Decoded(group.setting, place, group.input_ids[row, group.prompt_tokens :].tolist())
