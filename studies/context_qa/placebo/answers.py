"""The placebo experiment's answers: a prompt is read once, and answered under every setting in one batch."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from eval.metrics.overlap import character_f1, gold_contained
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.data.split import hash_order
from sft.generation.answerer import Answerer
from sft.generation.batch.cache import growing_cache
from sft.generation.generate import library_config
from sft.generation.streamer import decode
from sft.prompt.encode import bos_ids, encode_answers, eos_id
from sft.system.errors import UserError
from sft.system.files import text_sha256
from studies.context_qa.models import open_model
from studies.context_qa.placebo import scores as scope_names
from studies.context_qa.placebo.scores import SCOPES, SETTINGS, RowScores

NEW_TOKENS = 32
GREEDY = {"do_sample": False, "max_new_tokens": NEW_TOKENS}


class Counted(NamedTuple):
    """Tokens that count as said already: these, and with `generated` the answer's own; never those `spared`."""

    tokens: frozenset[int]
    generated: bool = True
    spared: frozenset[int] = frozenset()


class Parts(NamedTuple):
    """A prompt's ids, and the different ids of its context, of everything around it, and of the gold answers."""

    ids: list[int]
    context: frozenset[int]
    around: frozenset[int]
    gold: frozenset[int]

    def counted(self, other: "Parts") -> dict[str, Counted]:
        """Scope → what counts as said already; `other` is the row whose context is the placebo."""
        prompt = self.context | self.around
        return {
            scope_names.NOTHING: Counted(frozenset(), generated=False),
            scope_names.GENERATED: Counted(frozenset()),
            scope_names.PROMPT: Counted(prompt),
            scope_names.PLACEBO: Counted(other.context),
            scope_names.QUESTION: Counted(self.around),
            scope_names.CONTEXT: Counted(self.context),
            scope_names.ALL_BUT_GOLD: Counted(prompt - self.gold, spared=self.gold),
            scope_names.GOLD: Counted(self.gold, generated=False),
        }


class CountedPenalty(LogitsProcessor):
    """A repetition penalty that is told, for each row of the batch, its strength and which tokens it counts.

    `first` holds the first scores of row 0 before any penalty, None until then.
    """

    def __init__(self, penalties: Sequence[float], counted: Sequence[Counted], prompt_tokens: int) -> None:
        self.penalties, self.counted, self.prompt_tokens = penalties, counted, prompt_tokens
        self.first: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Penalise `scores` (rows, vocabulary) given `input_ids` (rows, prompt and answer tokens)."""
        if self.first is None:
            self.first = scores[0].clone()
        scores = scores.clone()
        answers = input_ids[:, self.prompt_tokens :].tolist()
        for row, penalty, counted, answer in zip(scores, self.penalties, self.counted, answers, strict=True):
            said = (counted.tokens | set(answer if counted.generated else ())) - counted.spared
            at = torch.tensor(sorted(said), dtype=torch.long, device=row.device)
            row[at] = torch.where(row[at] < 0, row[at] * penalty, row[at] / penalty)
        return scores


class Experiment:
    """A model and the rows that it answers, in the order of a hash. The model is loaded when a row is to be answered.

    Raises UserError for anything wrong with the model's configuration or run, and with the data.
    """

    def __init__(self, model: Path, overrides: Sequence[str], data: str) -> None:
        self.model = open_model(model, overrides)
        self.rows = [row for row in examples_of(hash_order(load_data(data).rows)) if row.input and row.output]
        if self.model.config.eval.shots or self.model.config.eval.brief:
            raise UserError("eval.shots, eval.brief: rows are asked as they are here; leave both out")
        self.described: dict[str, Any] = {
            "schema_version": 1,
            **self.model.described,
            "data_sha256": text_sha256(str(dataclasses.astuple(row)) for row in self.rows),
            "new_tokens": NEW_TOKENS,
            "settings": SETTINGS,
            "scopes": SCOPES,
        }

    @functools.cached_property
    def answerer(self) -> Answerer:
        """The loaded model."""
        return self.model.load()

    def answered(self, places: Iterable[int]) -> Iterator[tuple[int, RowScores]]:
        """Answer the rows at these places; each comes as soon as it is finished."""
        for place in tqdm(list(places), unit="row"):
            row = self.rows[place]
            following = (self.rows[(place + ahead) % len(self.rows)] for ahead in range(1, len(self.rows)))
            other = next((one for one in following if one.input != row.input), None)
            if other is None:
                raise UserError("the placebo needs rows with different contexts; all of these have the same")
            parts = self.parts(row)
            yield place, self._scores(row, parts.ids, parts.counted(self.parts(other)), parts.gold)

    def parts(self, row: Example) -> Parts:
        """The row's prompt, taken apart. Raises UserError when it does not fit the model, or not token by token."""
        tokenizer, prompt = self.answerer.tokenizer, self.answerer.prompt(row.instruction, row.input, NEW_TOKENS)
        plain = getattr(prompt.text, "special_spans", None) is None
        encoded = tokenizer(
            str(prompt.text), add_special_tokens=False, split_special_tokens=plain, return_offsets_mapping=True
        )
        start_ids = bos_ids(tokenizer) if plain else []
        if prompt.context_shortened or prompt.ids != [*start_ids, *encoded["input_ids"]]:
            raise UserError(f"row {row.index}: too long, or with the text of a special token in it; leave it out")
        start = prompt.text.rindex(row.input)
        golds = row.references
        found = (occurrence for gold in golds for occurrence in re.finditer(re.escape(gold), row.input))
        spans = [(start + occurrence.start(), start + occurrence.end()) for occurrence in found]

        def within(first: int, last: int) -> frozenset[int]:
            pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            return frozenset(token for token, (low, high) in pairs if low < last and high > first)

        context = within(start, start + len(row.input))
        around = within(0, start) | within(start + len(row.input), len(prompt.text)) | frozenset(start_ids)
        alone = (token for ids in encode_answers(tokenizer, golds) for token in ids)
        return Parts(prompt.ids, context, around, frozenset(alone).union(*(within(*span) for span in spans)))

    def _scores(self, row: Example, prompt: list[int], scopes: dict[str, Counted], gold: frozenset[int]) -> RowScores:
        texts, first = self.answers(prompt, [(penalty, scopes[scope]) for scope, penalty in SETTINGS])
        return RowScores(
            index=row.index,
            gold_contained=[int(gold_contained(text, row.references)) for text in texts],
            character_f1=[round(character_f1(text, row.references), 4) for text in texts],
            characters=[len(text.strip()) for text in texts],
            penalised=[len(scopes[scope].tokens) for scope in SCOPES],
            gold_penalised=[round(len(gold & scopes[scope].tokens) / len(gold), 4) for scope in SCOPES],
            top=round(float(first.max()), 3),
            median=round(float(first.median()), 3),
            positive=round(float((first > 0).float().mean()), 5),
        )

    @torch.inference_mode()
    def answers(self, prompt: list[int], settings: Sequence[tuple[float, Counted]]) -> tuple[list[str], torch.Tensor]:
        """Greedy answers to one prompt under each (penalty, what it counts); (vocabulary,) first logits without any."""
        model, tokenizer = self.answerer.model, self.answerer.tokenizer
        ids = torch.tensor([prompt], device=model.device)
        cache = growing_cache(model.config)
        model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)  # `generate` reads the last token itself
        cache.batch_repeat_interleave(len(settings))
        penalties, counted = zip(*settings, strict=True)
        penalty = CountedPenalty(penalties, counted, len(prompt))
        eos = eos_id(tokenizer)
        output = model.generate(
            ids.repeat(len(settings), 1),
            attention_mask=ids.new_ones(len(settings), len(prompt)),
            past_key_values=cache,
            logits_processor=LogitsProcessorList([penalty]),
            generation_config=library_config(GREEDY, pad_token_id=tokenizer.pad_token_id, eos_token_id=eos),
        )
        answers = output[:, len(prompt) :].tolist()
        bodies = [answer[: answer.index(eos)] if eos in answer else answer for answer in answers]
        return [decode(tokenizer, body) for body in bodies], penalty.first
