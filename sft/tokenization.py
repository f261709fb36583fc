"""Rows become token ids and labels: prompt and answer are encoded apart, so the boundary between them is known."""

import bisect
import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sft.errors import UserError
from sft.prompt import FormattingFunction

IGNORE_INDEX = -100
"""Label of a token that takes no part in the loss (PyTorch's default `ignore_index`)."""

Fate = Literal["whole", "context shortened", "end cut off", "dropped"]
FATES: tuple[Fate, ...] = ("whole", "context shortened", "end cut off", "dropped")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One training row: `input_ids` and `labels` have one entry a token; `prompt_tokens` of them are prompt."""

    input_ids: list[int]
    labels: list[int]
    prompt_tokens: int
    fate: Fate


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode `text` as data: nothing added, and special-token text inside it split like any other text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    special = [token for token in tokenizer.all_special_tokens if token in text and len(token) > 1]
    if not special or set(ids).isdisjoint(tokenizer.convert_tokens_to_ids(special)):
        return ids
    # To this tokenizer its special tokens are words like any other; behind its first character none is one.
    place = min(text.index(token) for token in special) + 1
    return [*encode_text(tokenizer, text[:place]), *encode_answer(tokenizer, text[place:])]


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode `text` as it goes on behind other text.

    SentencePiece puts a space in front of a text, which inside of one is not there: an answer that was encoded as a
    text of its own would teach the model to begin with a space. A newline in front has it, if anything has, and the
    newline's own ids are taken off again.
    """
    newline, joined = encode_text(tokenizer, "\n"), encode_text(tokenizer, f"\n{text}")
    if joined[: len(newline)] == newline:
        return joined[len(newline) :]
    return encode_text(tokenizer, text)  # the newline has become one token with what follows


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The same for many texts at once, which fast tokenizers do on all cores."""
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """A prompt's ids, the same in training and answering.

    An ordinary text gets a BOS where the tokenizer adds one itself. A `Prompt` with special tokens of its own has
    them encoded as such, and them alone; it brings its BOS along if it wants one.
    """
    spans = getattr(prompt, "special_spans", None)
    if spans is None:
        return [*bos_ids(tokenizer), *encode_text(tokenizer, prompt)]
    if tuple(found.span() for found in _special_pattern(tokenizer, len(tokenizer)).finditer(prompt)) == spans:
        return tokenizer(str(prompt), add_special_tokens=False, split_special_tokens=False)["input_ids"]
    ids, place = [], 0  # the data contains the text of a special token: what lies between the template's is text
    for start, end in spans:
        encode = encode_answer if place else encode_text
        ids += [*encode(tokenizer, prompt[place:start]), tokenizer.convert_tokens_to_ids(prompt[start:end])]
        place = end
    return [*ids, *encode_answer(tokenizer, prompt[place:])]


@functools.lru_cache(maxsize=8)
def _special_pattern(tokenizer: PreTrainedTokenizerBase, words: int) -> re.Pattern[str]:
    # Thousands of special tokens are gone through once a tokenizer, and not for every prompt; added words are new ones.
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))))


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of a text by itself: its BOS id, or nothing."""
    start = tokenizer("a")["input_ids"][:1]
    return start if tokenizer.bos_token_id is not None and start == [tokenizer.bos_token_id] else []


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end-of-text id. Raises UserError when the tokenizer has none, since answers would never end."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-text token, so no answer could end")
    return tokenizer.eos_token_id


class RowEncoder:
    """Encodes data sets of rows with a tokenizer, and counts what happened to them.

    Each set is encoded once however often it is asked for, with the first formatting function given: the preview
    and the trainer share the work.

    Args:
        tokenizer: the base model's tokenizer.
        max_length: the most tokens of a row, its end-of-text token included.
        truncation: "context" takes what is too much from the end of a row's context, and drops a row
            whose instruction and answer alone do not fit; "end" cuts the row's end off, answer and
            end-of-text token first, as alpaca-lora's `cutoff_len` does.
        train_on_inputs: whether the prompt's tokens are supervised too.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        truncation: Literal["context", "end"] = "context",
        train_on_inputs: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncation = truncation
        self.train_on_inputs = train_on_inputs
        self.fates: dict[str, Counter[tuple[str, Fate]]] = {}
        self._eos = eos_id(tokenizer)
        self._done: dict[str, Dataset] = {}

    def encode(self, dataset: Dataset, formatting_func: FormattingFunction, name: str) -> Dataset:
        """Columns `input_ids`, `labels`, `category` of the rows that fit; `fates[name]` counts (category, fate)."""
        key = dataset._fingerprint
        if key not in self._done:
            fates: Counter[tuple[str, Fate]] = Counter()
            columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "category": []}
            for row in dataset:
                encoded = self.encode_row(row, formatting_func)
                fates[row["category"], encoded.fate] += 1
                if encoded.fate != "dropped":
                    columns["input_ids"].append(encoded.input_ids)
                    columns["labels"].append(encoded.labels)
                    columns["category"].append(row["category"])
            self._done[key] = Dataset.from_dict(columns)
            self.fates[name] = fates
        return self._done[key]

    def encode_row(self, row: Mapping[str, Any], formatting_func: FormattingFunction) -> Encoded:
        """Encode one row with fields instruction, input, output."""
        text = formatting_func(row)
        prompt = encode_prompt(self.tokenizer, text["prompt"])
        answer = [*encode_answer(self.tokenizer, text["completion"]), self._eos]
        if len(prompt) + len(answer) <= self.max_length:
            return self._labelled(prompt, answer, "whole")
        if self.truncation == "end":
            return self._labelled(prompt, answer, "end cut off")
        shorter = shorten_context(
            self.tokenizer,
            row["input"],
            lambda context: formatting_func({**row, "input": context})["prompt"],
            self.max_length - len(answer),
        )
        if shorter is None:
            return Encoded([], [], 0, "dropped")
        return self._labelled(shorter.ids, answer, "context shortened")

    def _labelled(self, prompt: list[int], answer: list[int], fate: Fate) -> Encoded:
        input_ids = [*prompt, *answer][: self.max_length]
        labels = list(input_ids) if self.train_on_inputs else [*[IGNORE_INDEX] * len(prompt), *answer]
        labels = labels[: self.max_length]
        # The first token of a row is predicted from nothing; a row without any other supervised token teaches nothing.
        if all(label == IGNORE_INDEX for label in labels[1:]):
            return Encoded([], [], 0, "dropped")
        return Encoded(input_ids, labels, min(len(prompt), self.max_length), fate)


class Shortened(NamedTuple):
    """What is left of a context, and the ids of the whole prompt with it."""

    context: str
    ids: list[int]


def shorten_context(
    tokenizer: PreTrainedTokenizerBase, context: str, render: Callable[[str], str], budget: int
) -> Shortened | None:
    """The prompt with the longest beginning of `context` that takes at most `budget` tokens in all.

    `render` makes the prompt's text from a context. None when not even one character of context fits,
    or when there is no context to shorten.
    """

    def tokens(characters: int) -> int:
        return len(encode_prompt(tokenizer, render(context[:characters])))

    if not context or tokens(1) > budget:
        return None
    # Tokens grow with characters (to within a merge), so the longest beginning that fits is found by bisection.
    kept = bisect.bisect_right(range(1, len(context) + 1), budget, key=tokens)
    while kept > 1 and tokens(kept) > budget:
        kept -= 1
    return Shortened(context[:kept], encode_prompt(tokenizer, render(context[:kept])))
