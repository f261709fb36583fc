"""Texts become token ids: prompt and answer are encoded apart, so the boundary between them is known."""

import bisect
import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.prompt.encoded_rows import digest
from sft.system.errors import UserError


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
    turns = encode_turns(tokenizer, prompts)
    return [pieces[0] if len(pieces) == 1 else [*itertools.chain(*pieces)] for pieces in turns]


def encode_turns(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> list[list[list[int]]]:
    """The same in pieces: what is given, an earlier answer with what ends its turn, what is given, and so on.

    A prompt without earlier answers is one piece. Like the last answer, earlier ones are encoded apart from the prompt.
    """
    if not any(getattr(prompt, "special_spans", None) is not None for prompt in prompts):
        bos = bos_ids(tokenizer)
        return [[[*bos, *ids]] for ids in encode_texts(tokenizer, prompts)]
    pieces = [_pieces(prompt) for prompt in prompts]
    pattern = _special_pattern(tokenizer, len(tokenizer))
    flat = [piece for of_prompt in pieces for piece in of_prompt]
    # What goes on behind other text, and does not begin with a special token, must not be encoded as a beginning.
    plain = [
        tuple(found.span() for found in pattern.finditer(piece.text)) == piece.spans
        and (piece.begins or (piece.spans and piece.spans[0][0] == 0))
        for piece in flat
    ]
    whole = iter(_ids(tokenizer, [piece.text for piece in itertools.compress(flat, plain)], split_special_tokens=False))
    in_parts = iter(_encode_spans(tokenizer, [p for p, is_plain in zip(flat, plain, strict=True) if not is_plain]))
    ids = iter([next(whole) if is_plain else next(in_parts) for is_plain in plain])
    return [[next(ids) for _ in of_prompt] for of_prompt in pieces]


class _Piece(NamedTuple):
    """A part of a prompt, its special tokens' (start, end), and whether the prompt begins with it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    begins: bool


def _pieces(prompt: Any) -> list[_Piece]:
    """A prompt, cut before and behind each earlier answer."""
    if not prompt.learned_spans:
        return [_Piece(prompt, prompt.special_spans, True)]
    cuts = [0, *itertools.chain(*prompt.learned_spans), len(prompt)]
    return [
        _Piece(
            prompt[start:end],
            tuple((a - start, b - start) for a, b in prompt.special_spans if start <= a < end),
            start == 0,
        )
        for start, end in itertools.pairwise(cuts)
    ]


def _encode_spans(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[_Piece]) -> list[list[int]]:
    """Pieces of which only `spans` are special tokens: what lies between is text, whatever it looks like."""
    beginnings: list[str] = []
    others: list[str] = []
    for text, spans, begins in pieces:
        cuts = [0, *itertools.chain(*spans), len(text)]
        between = [text[start:end] for start, end in zip(cuts[::2], cuts[1::2], strict=True)]
        (beginnings if begins else others).append(between[0])
        others += between[1:]
    first = iter(encode_texts(tokenizer, beginnings))
    rest = iter(encode_answers(tokenizer, others))
    found = []
    for text, spans, begins in pieces:
        ids = [*next(first if begins else rest)]
        for start, end in spans:
            ids += [tokenizer.convert_tokens_to_ids(text[start:end]), *next(rest)]
        found.append(ids)
    return found


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


class Shortened(NamedTuple):
    """What is left of a context and of the turns before, and the ids of the whole prompt with them."""

    context: str
    ids: list[int]
    history: Sequence[tuple[str, str]] = ()


def shorten(
    tokenizer: PreTrainedTokenizerBase,
    context: str,
    history: Sequence[tuple[str, str]],
    render: Callable[[str, Sequence[tuple[str, str]]], str],
    budget: int,
) -> Shortened | None:
    """The prompt without as few of the oldest turns as it takes to have at most `budget` tokens.

    Where it is still too long without any, its context is shortened, too. A system message always stays. `render`
    makes the prompt's text from a context and a history. None when no prompt is short enough.
    """
    system = [turn for turn in history if turn[0] == "system"]
    turns = [turn for turn in history if turn[0] != "system"]

    def encoded(first: int) -> list[int]:
        return encode_prompt(tokenizer, render(context, [*system, *turns[first:]]))

    firsts = range(2, len(turns) + 1, 2)
    place = bisect.bisect_left(firsts, True, key=lambda first: len(encoded(first)) <= budget)
    if place < len(firsts):
        return Shortened(context, encoded(firsts[place]), [*system, *turns[firsts[place] :]])
    shorter = shorten_context(tokenizer, context, lambda text: render(text, system), budget)
    return shorter and shorter._replace(history=system)


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
