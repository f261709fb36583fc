"""Rows become token ids and labels, each once, through the trainer's formatting function."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pyarrow
import tokenizers
import transformers
from datasets import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from sft.data.rows import temporary_dataset
from sft.prompt.encode import encode_answers, encode_turns, eos_id, is_all_data, shorten, tokenizer_sha256
from sft.prompt.encoded_rows import IGNORE_INDEX, SCHEMA, digest, kept
from sft.prompt.template import FormattingFunction, history_of
from sft.system.processes import RANK

BATCH = 1000
"""Rows that are encoded at once."""

Fate = Literal["whole", "context shortened", "end cut off", "dropped"]
FATES: tuple[Fate, ...] = get_args(Fate)
"""What became of rows. A context that is shortened may be that of earlier turns, the oldest of which are left out."""
Turns = Literal["all", "last"]
"""Whose answers of a conversation are learned."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One training row: `input_ids` and `labels` have one entry a token; `prompt_tokens` of them are prompt."""

    input_ids: list[int]
    labels: list[int]
    prompt_tokens: int
    fate: Fate


class EncodedRows(NamedTuple):
    """The rows that fit, with the columns of SCHEMA, and how many rows had which fate, by (category, fate)."""

    rows: Dataset
    fates: Counter[tuple[str, Fate]]


@dataclasses.dataclass(eq=False)
class RowEncoder:
    """Encodes rows as a formatting function writes them, and counts what happened to them.

    Args:
        tokenizer: the base model's tokenizer.
        formatting_func: row → prompt and completion; the trainer is given the same one.
        max_length: the most tokens of a row, its end-of-text token included.
        truncation: "context" takes what is too much from the oldest turns of a conversation, then from the
            end of a row's context, and drops a row whose instruction and answer alone do not fit; "end"
            cuts the row's end off, answer and end-of-text token first, as alpaca-lora's `cutoff_len` does.
        train_on_inputs: whether the prompt's tokens are supervised too, those of earlier turns among them.
        turns: whether all answers of a conversation are supervised, or the last one only.
    """

    tokenizer: PreTrainedTokenizerBase
    formatting_func: FormattingFunction
    max_length: int
    truncation: Literal["context", "end"] = "context"
    train_on_inputs: bool = True
    turns: Turns = "last"

    def __post_init__(self) -> None:
        self._eos = eos_id(self.tokenizer)

    def encode(self, rows: Dataset) -> EncodedRows:
        """Encode rows with the fields of `Example`.

        They are kept on disk for the next run with the same rows, tokenizer, template and settings, unless tokenizer or
        formatting function are code that nobody knows.
        """
        fates: Counter[tuple[str, Fate]] = Counter()
        batches = self._batches(rows, fates)
        if not is_all_data(self.tokenizer) or type(self.formatting_func) is not FormattingFunction:
            return EncodedRows(temporary_dataset(SCHEMA, batches), fates)
        key = digest(self._identity, rows._fingerprint, self.formatting_func.template.sha256)
        found = kept(key, batches, lambda: [(*what, count) for what, count in fates.items()])
        return EncodedRows(found.rows, Counter({(category, fate): count for category, fate, count in found.notes}))

    def _batches(self, rows: Dataset, fates: Counter[tuple[str, Fate]]) -> Iterator[pyarrow.RecordBatch]:
        # A bar for what takes long only.
        with tqdm(total=len(rows), desc="encoding", unit="row", delay=3, disable=None if RANK == 0 else True) as bar:
            for columns in rows.iter(BATCH):
                batch = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
                fitting = []
                for row, encoded in zip(batch, self.encode_rows(batch), strict=True):
                    fates[row["category"], encoded.fate] += 1
                    if encoded.fate != "dropped":
                        fitting.append(row | {"input_ids": encoded.input_ids, "labels": encoded.labels})
                yield pyarrow.RecordBatch.from_pylist(fitting, SCHEMA)
                bar.update(len(batch))

    @functools.cached_property
    def tokenizer_sha256(self) -> str:
        """See `tokenizer_sha256`; a large vocabulary takes a while."""
        return tokenizer_sha256(self.tokenizer)

    @functools.cached_property
    def _identity(self) -> str:
        """Hash of all that decides about a row's tokens, but for the row and the template: this code is part of it."""
        settings = [self.max_length, self.truncation, self.train_on_inputs, self.turns, self._eos]
        versions = [tokenizers.__version__, transformers.__version__]
        files = ("template.py", "turns.py", "encode.py", "row_encoder.py", "encoded_rows.py")
        sources = [(Path(__file__).parent / name).read_bytes() for name in files]
        return digest(self.tokenizer_sha256, json.dumps([settings, versions]), *sources)

    def encode_row(self, row: Mapping[str, Any]) -> Encoded:
        """Encode one row with fields instruction, input, output; it may have history."""
        return self.encode_rows([row])[0]

    def encode_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Encoded]:
        """The same for many rows at once."""
        texts = list(map(self.formatting_func, rows))
        prompts = encode_turns(self.tokenizer, [text["prompt"] for text in texts])
        answers = encode_answers(self.tokenizer, [text["completion"] for text in texts])
        return [
            self._fitted(row, prompt, [*answer, self._eos])
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        ]

    def _fitted(self, row: Mapping[str, Any], prompt: list[list[int]], answer: list[int]) -> Encoded:
        """The row of a prompt in pieces (see `encode_turns`) and an answer."""
        if sum(map(len, prompt)) + len(answer) <= self.max_length:
            return self._labelled(prompt, answer, "whole")
        if self.truncation == "end":
            return self._labelled(prompt, answer, "end cut off")

        def render(context: str, history: Sequence[tuple[str, str]]) -> str:
            return self.formatting_func({**row, "input": context, "history": history})["prompt"]

        room = self.max_length - len(answer)
        shorter = shorten(self.tokenizer, row["input"], history_of(row), render, room)
        if shorter is None:
            return Encoded([], [], 0, "dropped")
        (prompt,) = encode_turns(self.tokenizer, [render(shorter.context, shorter.history)])
        return self._labelled(prompt, answer, "context shortened")

    def _labelled(self, prompt: list[list[int]], answer: list[int], fate: Fate) -> Encoded:
        input_ids, labels = [], []
        for place, piece in enumerate(prompt):
            is_learned = self.train_on_inputs or (self.turns == "all" and place % 2 == 1)
            input_ids += piece
            labels += piece if is_learned else [IGNORE_INDEX] * len(piece)
        prompt_tokens = len(input_ids)
        input_ids, labels = ([*ids, *answer][: self.max_length] for ids in (input_ids, labels))
        # The first token of a row is predicted from nothing; a row without any other supervised token teaches nothing.
        if labels.count(IGNORE_INDEX) + (labels[:1] != [IGNORE_INDEX]) >= len(labels):
            return Encoded([], [], 0, "dropped")
        return Encoded(input_ids, labels, min(prompt_tokens, self.max_length), fate)
