"""The decoding loop for many prompts: rows that have ended leave the batch, and waiting prompts take their places.

Where it is exact, rows go on by several tokens a step: what may come next is looked up in what was said before.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel

from sft.generation.batch.attention import ROW_BY_ROW, RowPlaces, attending
from sft.generation.batch.cache import growing_cache, join, visible, write_at
from sft.generation.batch.drafts import Acceptance, Lookup
from sft.generation.batch.reading import alike, can_read_packed, read_packed
from sft.generation.batch.rows import BY_ROW, Group, Row
from sft.generation.ends import AnswerEnds
from sft.generation.pace import Watch
from sft.model.attention.documents import packing_obstacle

CHANGED_SHARE = 0.25
"""Share of the batch that has to have ended, or to find a place in it, to be worth the copy of everybody's cache."""

READ_TOKENS = 1024
"""Padded tokens of prompts that are read at once, where they are more than one prompt and cannot be read packed."""

Prepared = tuple[torch.Tensor, dict[str, Any]]
"""What `generate` of transformers hands to a decoding loop: the ids of prompts, and all else by name.

That is `logits_processor`, `generation_config`, and what the model is called with: the cache, the attention mask
(None: no padding), position ids where the model takes them, and more.
"""

Decoded = tuple[int, int, list[int]]
"""The number of a setting, the place of a prompt, and the new tokens that it was answered with under that setting."""


def can_guess(config: PretrainedConfig) -> bool:
    """Whether rows may go on by different numbers of tokens: where it is known what their tokens see."""
    return config._attn_implementation == "sdpa" and packing_obstacle(config) is None


@dataclasses.dataclass
class Batch:
    """The rows that are decoded together: those of its groups, one after another, with one cache.

    inputs: what else the model is called with, whatever the rows.

    Prompts that were just read are one that its groups, which are settings, have in common: the cache is each's.
    """

    groups: list[Group]
    cache: DynamicCache
    inputs: dict[str, Any]
    acceptance: Acceptance = dataclasses.field(default_factory=Acceptance)

    @property
    def rows(self) -> list[Row]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]

    @property
    def live(self) -> list[Row]:
        """Those that have not ended."""
        return [row for row in self.rows if not row.ended]

    def change(self, newcomers: Sequence["Batch"]) -> None:
        """Drop the rows that have ended and take in new ones; columns that are then padding in every row go, too."""
        own = [(number, row.end) for number, row in enumerate(self.rows) if not row.ended]
        for group in self.groups:
            group.drop_ended()
        self.groups = [group for group in self.groups if group.rows]
        caches = []
        for new in newcomers:
            self.groups += new.groups
            caches += [new.cache] * len(new.groups)
            self.inputs = new.inputs
        if self.groups:
            width = max(row.length for row in self.rows)
            join(self.cache, own, caches, width)
            for row in self.rows:
                row.first = width - row.length

    def step(self, model: PreTrainedModel) -> Iterator[Decoded]:
        """Read each row's last token, and what may follow it, and choose; hands out the answers that end with it."""
        drafts = [row.drafts() for row in self.rows]
        if can_guess(model.config):
            number = self.acceptance.drafts(len(self.live), sum(map(bool, drafts)))
            read = [its[:number] for its in drafts]
            logits = self._read_at_own_columns(model, read)
        else:
            read, logits = [[] for _ in drafts], self._read_in_step(model)
        yield from _choose(self.groups, logits, read, drafts, self.acceptance)

    def _read_at_own_columns(self, model: PreTrainedModel, drafts: Sequence[list[int]]) -> torch.Tensor:
        """(tokens, vocabulary): the logits behind each row's last token and each of its drafts."""
        rows, most = self.rows, 1 + max(map(len, drafts))
        tokens, where, among, first = [], [], [], 0
        for number, (row, its) in enumerate(zip(rows, drafts, strict=True)):
            tokens += [row.tokens[-1], *its]
            where += [(number, row.end + place, row.first, number * most + place) for place in range(1 + len(its))]
            among.append([first + min(place, len(its)) for place in range(most)])
            first += 1 + len(its)
        end = 1 + max(column for _, column, _, _ in where)
        owners, columns, firsts, places = torch.tensor(where, device=model.device).unbind(dim=1)
        row_places = RowPlaces(torch.tensor(among, device=model.device), places)
        mask: Any = visible(self.cache, firsts[row_places.tokens[:, 0]], columns[row_places.tokens], end)
        if not getattr(model.config, "layer_types", None):
            mask = mask["full_attention"]
        write_at(self.cache, owners, columns, end)
        with attending(model, ROW_BY_ROW):
            return model(
                input_ids=torch.tensor([tokens], device=model.device), position_ids=(columns - firsts)[None],
                attention_mask=mask, past_key_values=self.cache, row_places=row_places, use_cache=True,
                return_dict=True,
            ).logits[0]  # fmt: skip

    def _read_in_step(self, model: PreTrainedModel) -> torch.Tensor:
        """(rows, vocabulary): the logits behind each row's last token, all of which go to the same column."""
        column = max(row.end for row in self.live)
        table = torch.tensor([[row.first, row.tokens[-1]] for row in self.rows], device=model.device)
        mask = (torch.arange(column + 1, device=model.device) >= table[:, :1]).long()
        position_ids = column - table[:, :1]
        inputs = model.prepare_inputs_for_generation(
            table[:, 1:],
            next_sequence_length=1,
            past_key_values=self.cache,
            attention_mask=mask,
            **{key: position_ids if key == "position_ids" else value for key, value in self.inputs.items()},
        )
        return model(**inputs, return_dict=True).logits[:, -1]


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
    batch = Batch([], growing_cache(model.config), {})
    while waiting or batch.groups:
        rows, live = batch.rows, batch.live
        longest = max(len(prompts[place]) for place in [row.place for row in live] or waiting[:1] or [0])
        room = max(settings, budget // (longest + new_tokens)) - len(live)
        coming = min(len(waiting), room // settings)
        if max(coming * settings, len(rows) - len(live)) >= CHANGED_SHARE * len(rows):
            newcomers: list[Batch] = []
            new = [prompts[place] for place in waiting[:coming]]
            for read_together in alike(new) if packed else batches(new, 0, READ_TOKENS):
                places = [waiting[number] for number in read_together]
                prepared = [prepare(places, setting) for setting in range(settings)]
                its_prompts = {place: prompts[place] for place in places}
                read, logits = _read(model, its_prompts, packed, prepared, seeds, ends)
                none: list[list[int]] = [[] for _ in read.rows]
                yield from _choose(read.groups, logits.repeat(settings, 1), none, none, batch.acceptance)
                if watch:
                    watch([len(prompts[place]) for place in places], 0, 0)
                newcomers.append(read)
            waiting = waiting[coming:]
            batch.change(newcomers)
        if batch.live:
            going_on = batch.live
            before = sum(len(row.tokens) for row in going_on)
            yield from batch.step(model)
            if watch:
                watch([], sum(len(row.tokens) for row in going_on) - before, len(going_on))


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
    prompts: Mapping[int, list[int]],
    packed: bool,
    prepared: Sequence[Prepared],
    seeds: Sequence[int],
    ends: Sequence[AnswerEnds],
) -> tuple[Batch, torch.Tensor]:
    """Read prompts, by their places, once for all settings they are prepared under, packed or as they are, padded.

    Returns them with the logits, (rows, vocabulary), behind them.
    """
    all_processors = [one for _, inputs in prepared for one in inputs["logits_processor"]]
    guess = can_guess(model.config) and all(isinstance(one, BY_ROW) for one in all_processors)
    groups = []
    for setting, (input_ids, inputs) in enumerate(prepared):
        processors, config = inputs.pop("logits_processor"), inputs.pop("generation_config")
        del inputs["stopping_criteria"]
        draws = None
        if config.do_sample:
            generators = [torch.Generator().manual_seed(seeds[place]) for place in prompts]
            draws = torch.stack([torch.rand(config.max_new_tokens, generator=each) for each in generators])
            draws = draws.to(input_ids.device)
        rows = [Row(place, len(prompt), Lookup(prompt) if guess else None) for place, prompt in prompts.items()]
        groups.append(Group(setting, ends[setting], rows, input_ids, processors, config, draws))
    # Of what the model is called with, all settings have the same.
    if packed:
        logits = read_packed(model, list(prompts.values()), inputs["past_key_values"])
    else:
        logits = model._prefill(input_ids, config, inputs, is_first_iteration=True).logits[:, -1]
    cache = inputs.pop("past_key_values")
    del inputs["attention_mask"]
    return Batch(groups, cache, inputs), logits


def _choose(
    groups: Sequence[Group],
    logits: torch.Tensor,
    read: Sequence[list[int]],
    drafts: Sequence[list[int]],
    acceptance: Acceptance,
) -> Iterator[Decoded]:
    """Let the rows of all groups go on, given logits (tokens, vocabulary) behind each one's last token and its `read`.

    Those are as many of its `drafts` as the model has read. A row takes one token, and one more for each that it would
    have chosen itself; hands out the answers that end with one. This waits for the GPU, once for all groups and for all
    that is asked of it. Raises UserError for logits that are not finite.
    """
    told, first, still = [], 0, iter(read)
    for group in groups:
        of_group = list(itertools.islice(still, len(group.rows)))
        last = first + sum(1 + len(its) for its in of_group)
        told.append(torch.stack([group.choose(logits[first:last], of_group), group.check.broken.long()]))
        first = last
    tokens = iter(torch.cat(told, dim=1).T.tolist())
    rows = [(group, row) for group in groups for row in group.rows]
    for (group, row), its_read, its_drafts in zip(rows, read, drafts, strict=True):
        its_tokens = list(itertools.islice(tokens, 1 + len(its_read)))
        for (token, is_broken), draft in itertools.zip_longest(its_tokens, its_drafts[: len(its_tokens)]):
            if row.ended:
                break
            if is_broken:
                group.check.fail()
            row.append(token)
            row.ended = group.has_ended(row)
            if row.ended:
                yield group.setting, row.place, row.tokens
            if draft is None:
                break
            acceptance.note(token == draft)
            if token != draft:
                break
