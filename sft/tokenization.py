"""Rows become token ids and labels: prompt and answer are encoded apart, so the boundary between them is known."""

import dataclasses
import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tokenizers
import transformers
from datasets import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from sft.encoded_rows import IGNORE_INDEX, SCHEMA, digest, for_once, kept
from sft.prompt import FormattingFunction
from sft.system.errors import UserError
from sft.system.processes import RANK

BATCH = 1000
"""Rows that are encoded at once."""

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
    return encode_texts(tokenizer, [text])[0]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The same for many texts at once, which fast tokenizers do on all cores."""
    encoded = _ids(tokenizer, texts, split_special_tokens=True)
    specials = [token for token in tokenizer.all_special_tokens if len(token) > 1]
    for place, text in enumerate(texts):
        present = [token for token in specials if token in text]
        if present and not set(encoded[place]).isdisjoint(tokenizer.convert_tokens_to_ids(present)):
            # To this tokenizer its special tokens are words like any other; behind its first character none is one.
            inside = min(map(text.index, present)) + 1
            encoded[place] = [*encode_text(tokenizer, text[:inside]), *encode_answer(tokenizer, text[inside:])]
    return encoded


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode `text` as it goes on behind other text.

    SentencePiece puts a space in front of a text, which inside of one is not there: an answer that was encoded as a
    text of its own would teach the model to begin with a space. A newline in front has it, if anything has, and the
    newline's own ids are taken off again.
    """
    return encode_answers(tokenizer, [text])[0]


def encode_answers(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The same for many texts at once."""
    newline, *joined = encode_texts(tokenizer, ["\n", *(f"\n{text}" for text in texts)])
    encoded = [ids[len(newline) :] if ids[: len(newline)] == newline else None for ids in joined]
    # Where the newline has become one token with what follows, the text is encoded by itself.
    alone = [text for text, ids in zip(texts, encoded, strict=True) if ids is None]
    rest = iter(encode_texts(tokenizer, alone))
    return [next(rest) if ids is None else ids for ids in encoded]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """A prompt's ids, the same in training and answering.

    An ordinary text gets a BOS where the tokenizer adds one itself. A `Prompt` with special tokens of its own has
    them encoded as such, and them alone; it brings its BOS along if it wants one.
    """
    return encode_prompts(tokenizer, [prompt])[0]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> list[list[int]]:
    """The same for many prompts of one template at once."""
    if not any(getattr(prompt, "special_spans", None) is not None for prompt in prompts):
        bos = bos_ids(tokenizer)
        return [[*bos, *ids] for ids in encode_texts(tokenizer, prompts)]
    pattern = _special_pattern(tokenizer, len(tokenizer))
    plain = [tuple(found.span() for found in pattern.finditer(prompt)) == prompt.special_spans for prompt in prompts]
    together = _ids(tokenizer, list(itertools.compress(prompts, plain)), split_special_tokens=False)
    rest = iter(together)
    return [
        next(rest) if is_plain else _encode_spans(tokenizer, prompt)
        for prompt, is_plain in zip(prompts, plain, strict=True)
    ]


def _encode_spans(tokenizer: PreTrainedTokenizerBase, prompt: Any) -> list[int]:
    # The data contains the text of a special token: what lies between the template's is text.
    ids: list[int] = []
    place = 0
    for start, end in prompt.special_spans:
        encode = encode_answer if place else encode_text
        ids += [*encode(tokenizer, prompt[place:start]), tokenizer.convert_tokens_to_ids(prompt[start:end])]
        place = end
    return [*ids, *encode_answer(tokenizer, prompt[place:])]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], split_special_tokens: bool) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(
        list(map(str, texts)), add_special_tokens=False, split_special_tokens=split_special_tokens,
        return_attention_mask=False, return_token_type_ids=False,
    )["input_ids"]  # fmt: skip


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


def is_all_data(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether what it does with a text is all in its files, and none of it in Python code."""
    return hasattr(tokenizer, "backend_tokenizer") and type(tokenizer).__module__.startswith("transformers.")


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a tokenizer's data: vocabulary, special tokens, and where all of it is data, merges and normalisation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        backend.no_padding()
        backend.no_truncation()
        content = backend.to_str()
    named = json.dumps([type(tokenizer).__name__, sorted(map(str, tokenizer.special_tokens_map.items()))])
    return digest(content.encode("utf-8", "surrogatepass"), named)


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
        """The rows that fit, with the columns of SCHEMA; `fates[name]` counts (category, fate).

        They are kept on disk for the next run with the same rows, tokenizer, template and settings.
        """
        if dataset._fingerprint not in self._done:
            fates: Counter[tuple[str, Fate]] = Counter()

            def encode() -> Iterator[dict[str, list]]:
                return self._batches(dataset, formatting_func, fates)

            def notes() -> list[tuple[str, str, int]]:
                return [(*what, count) for what, count in fates.items()]

            if is_all_data(self.tokenizer):
                key = digest(self._identity, dataset._fingerprint, formatting_func.template.sha256)
                rows, counts = kept(key, encode, notes)
            else:
                rows, counts = for_once(encode, notes)
            self._done[dataset._fingerprint] = rows
            self.fates[name] = Counter({(category, fate): count for category, fate, count in counts})
        return self._done[dataset._fingerprint]

    def _batches(
        self, dataset: Dataset, formatting_func: FormattingFunction, fates: Counter[tuple[str, Fate]]
    ) -> Iterator[dict[str, list]]:
        # A bar for what takes long only.
        with tqdm(total=len(dataset), desc="encoding", unit="row", delay=3, disable=None if RANK == 0 else True) as bar:
            for batch in dataset.iter(BATCH):
                rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
                columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
                for row, encoded in zip(rows, self.encode_rows(rows, formatting_func), strict=True):
                    fates[row["category"], encoded.fate] += 1
                    if encoded.fate != "dropped":
                        columns["input_ids"].append(encoded.input_ids)
                        columns["labels"].append(encoded.labels)
                        for name in ("index", "category"):
                            columns[name].append(row[name])
                yield columns
                bar.update(len(rows))

    @functools.cached_property
    def tokenizer_sha256(self) -> str:
        """See `tokenizer_sha256`; a large vocabulary takes a while."""
        return tokenizer_sha256(self.tokenizer)

    @functools.cached_property
    def _identity(self) -> str:
        """Hash of all that decides about a row's tokens, but for the row and the template: this code is part of it."""
        settings = [self.max_length, self.truncation, self.train_on_inputs, self._eos]
        versions = [tokenizers.__version__, transformers.__version__]
        here = Path(__file__).parent
        sources = [(here / name).read_bytes() for name in ("tokenization.py", "encoded_rows.py", "prompt.py")]
        return digest(self.tokenizer_sha256, json.dumps([settings, versions]), *sources)

    def encode_row(self, row: Mapping[str, Any], formatting_func: FormattingFunction) -> Encoded:
        """Encode one row with fields instruction, input, output."""
        return self.encode_rows([row], formatting_func)[0]

    def encode_rows(self, rows: Sequence[Mapping[str, Any]], formatting_func: FormattingFunction) -> list[Encoded]:
        """The same for many rows at once."""
        texts = list(map(formatting_func, rows))
        prompts = encode_prompts(self.tokenizer, [text["prompt"] for text in texts])
        answers = encode_answers(self.tokenizer, [text["completion"] for text in texts])
        return [
            self._fitted(row, formatting_func, prompt, [*answer, self._eos])
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        ]

    def _fitted(
        self, row: Mapping[str, Any], formatting_func: FormattingFunction, prompt: list[int], answer: list[int]
    ) -> Encoded:
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
        supervised_from = 1 if self.train_on_inputs else max(1, len(prompt))
        if supervised_from >= len(labels):
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

    def encoded(characters: int) -> list[int]:
        return encode_prompt(tokenizer, render(context[:characters]))

    if not context or len(ids := encoded(1)) > budget:
        return None
    whole = encoded(len(context))
    if len(whole) <= budget:
        return Shortened(context, whole)
    fits, too_long, tokens = 1, len(context), len(whole)
    # Encoding a long prompt is what takes time. Tokens grow about evenly with characters, so the place where they reach
    # the budget is guessed, and only every third time, in case the guesses creep, is the interval halved.
    attempt = 0
    while too_long - fits > 1:
        attempt += 1
        share = (budget + 0.5 - len(ids)) / (tokens - len(ids)) if attempt % 3 else 0.5
        middle = min(max(fits + round((too_long - fits) * share), fits + 1), too_long - 1)
        found = encoded(middle)
        if len(found) <= budget:
            fits, ids = middle, found
        else:
            too_long, tokens = middle, len(found)
    return Shortened(context[:fits], ids)
