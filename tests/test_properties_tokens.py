"""Invariants of tokenization, truncation and streaming, for any text and the tokenizers of several families."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.generation.streamer import CharacterStreamer, decode
from sft.model.load import load_tokenizer
from sft.prompt.encode import (
    bos_ids,
    encode_answer,
    encode_answers,
    encode_prompt,
    encode_prompts,
    encode_text,
    encode_texts,
    shorten_context,
)
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import FormattingFunction, PromptTemplate
from sft.system.visible import visible

TEMPLATE = PromptTemplate("x", "問:{instruction}\n文:{input}\n答:\n", "問:{instruction}\n答:\n")
FAMILIES = ["open-calm", "rinna", "abeja", "llama-2", "llm-jp", "gemma-3"]


@pytest.fixture(scope="module", params=["tiny", *FAMILIES])
def any_tokenizer(request, tokenizer, small_base):
    """Byte-level BPE, SentencePiece with and without a space in front, and abeja's word by word."""
    return tokenizer if request.param == "tiny" else load_tokenizer(small_base(request.param)["base"])


def texts(tokenizer, size=12):
    """Texts with what tokenizers stumble over, their own special tokens in whole and in parts among it."""
    specials = tokenizer.all_special_tokens
    pieces = ["日本", "の首都は", "東京です。", "\n", "\r\n", " ", "　", "  ", "\t", "😀", "鱻", "é", "か\u3099", "ｶﾞ",
              "▁", "<NL>", "<0x0A>", "<|byte10|>", "<SP>", "\ufeff", "\u2028"]  # fmt: skip
    pieces += [*specials, *(f"{token}{token}" for token in specials), *(token[:-1] for token in specials)]
    some = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
    return st.lists(st.sampled_from(pieces) | some, max_size=size).map("".join)


def special_ids(tokenizer):
    """Ids of special tokens but the one of what is unknown, which is data's unless it has another meaning, too."""
    named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}) | named - {None}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_data_never_becomes_a_special_token_whether_alone_or_in_a_batch(any_tokenizer, data):
    tokenizer = any_tokenizer
    some = data.draw(st.lists(texts(tokenizer), max_size=4))
    for many, one in ((encode_texts, encode_text), (encode_answers, encode_answer), (encode_prompts, encode_prompt)):
        encoded = many(tokenizer, some)
        assert encoded == [one(tokenizer, text) for text in some]
        bos = bos_ids(tokenizer) if many is encode_prompts else []
        for ids in encoded:
            assert ids[: len(bos)] == bos
            assert special_ids(tokenizer).isdisjoint(ids[len(bos) :])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_templates_special_tokens_are_the_only_ones_of_its_prompts(any_tokenizer, data):
    tokenizer = any_tokenizer
    special = tuple(sorted({tokenizer.eos_token, tokenizer.bos_token or tokenizer.eos_token}))
    first, last = special[0], special[-1]
    template = PromptTemplate(
        "chat", f"{first}問{{instruction}}\n{{input}}{last}{first}答", f"{first}問{{instruction}}{last}答", special
    )
    rows = data.draw(st.lists(st.tuples(texts(tokenizer, 4), texts(tokenizer, 4)), min_size=1, max_size=4))
    prompts = [template.render(*row) for row in rows]
    encoded = encode_prompts(tokenizer, prompts)
    assert encoded == [encode_prompt(tokenizer, prompt) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        own = [tokenizer.convert_tokens_to_ids(prompt[start:end]) for start, end in prompt.special_spans]
        assert [token for token in ids if token in special_ids(tokenizer)] == own


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_fit_and_end_once_and_their_labels_are_their_own_tokens(any_tokenizer, data):
    tokenizer = any_tokenizer
    options = {
        "max_length": data.draw(st.integers(16, 90)),
        "truncation": data.draw(st.sampled_from(["context", "end"])),
        "train_on_inputs": data.draw(st.booleans()),
    }
    row = st.fixed_dictionaries(
        {"instruction": texts(tokenizer, 4), "input": texts(tokenizer, 30), "output": texts(tokenizer, 8)}
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    encoder = RowEncoder(tokenizer, FormattingFunction(TEMPLATE), **options)
    together = encoder.encode_rows(rows)
    assert together == [encoder.encode_row(row) for row in rows]
    for row, encoded in zip(rows, together, strict=True):
        ids, labels, prompt_tokens = encoded.input_ids, encoded.labels, encoded.prompt_tokens
        answer = [*encode_answer(tokenizer, row["output"]), tokenizer.eos_token_id]
        prompt = encode_prompt(tokenizer, encoder.formatting_func(row)["prompt"])
        if encoded.fate == "dropped":
            assert ids == labels == []
            least = encode_prompt(tokenizer, TEMPLATE.render(row["instruction"], row["input"][:1])) + answer
            unlearned = not options["train_on_inputs"] and len(prompt) >= options["max_length"]
            assert unlearned if options["truncation"] == "end" else len(least) > options["max_length"]
            continue
        assert len(ids) == len(labels) <= options["max_length"]
        supervised = [token for token, label in zip(ids, labels, strict=True) if label != IGNORE_INDEX]
        assert supervised == (ids if options["train_on_inputs"] else ids[prompt_tokens:])
        assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))
        assert any(label != IGNORE_INDEX for label in labels[1:])
        if encoded.fate == "end cut off":
            assert options["truncation"] == "end"
            assert ids == [*prompt, *answer][: options["max_length"]]
            continue
        assert ids[prompt_tokens:] == answer
        bos = len(bos_ids(tokenizer))
        specials = [place for place, token in enumerate(ids) if token in special_ids(tokenizer)]
        assert specials == [*range(bos), len(ids) - 1]
        assert (ids[:prompt_tokens] == prompt) == (encoded.fate == "whole")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_shortened_context_is_a_beginning_and_one_character_more_does_not_fit(any_tokenizer, data):
    tokenizer = any_tokenizer
    context, question = data.draw(texts(tokenizer, 30)), data.draw(texts(tokenizer, 3))
    budget = data.draw(st.integers(1, 90))

    def tokens(text):
        return len(encode_prompt(tokenizer, TEMPLATE.render(question, text)))

    found = shorten_context(tokenizer, context, lambda text: TEMPLATE.render(question, text), budget)
    if found is None:
        assert not context or tokens(context[:1]) > budget
        return
    assert context.startswith(found.context)
    assert found.ids == encode_prompt(tokenizer, TEMPLATE.render(question, found.context))
    assert len(found.ids) <= budget
    assert found.context == context or tokens(context[: len(found.context) + 1]) > budget


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_byte_level_tokens_are_the_text_whatever_it_holds(tokenizer, data):
    text, answer = data.draw(texts(tokenizer)), data.draw(texts(tokenizer))
    assert tokenizer.decode(encode_text(tokenizer, text) + encode_answer(tokenizer, answer)) == text + answer


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_streamed_is_the_answer_whatever_its_tokens(any_tokenizer, data):
    tokenizer = any_tokenizer
    ids = encode_answer(tokenizer, data.draw(texts(tokenizer, 6)))
    # No single byte of SentencePiece's: the library's decoder makes a run of them one text or none, characters before.
    whole = [number for token, number in tokenizer.get_vocab().items() if not token.startswith("<0x")]
    ids += data.draw(st.lists(st.sampled_from(sorted(whole)), max_size=8))
    pieces: list[str] = []
    streamer = CharacterStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == visible(decode(tokenizer, ids))
