"""Answers end at a heading of the template or at a stop string: by text, in every batch and every way of decoding."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from sft.ask.question import ask
from sft.generation.batch.drafts import Acceptance, Lookup
from sft.generation.ends import AnswerEnds, text_of
from sft.generation.generate import Answer, generate, generate_all
from sft.generation.streamer import CharacterStreamer
from sft.model.load import load_tokenizer
from sft.prompt.encode import encode_answer, eos_id
from sft.prompt.headings import headings, stop_texts
from sft.prompt.template import ALPACA_EN, ALPACA_JA, PromptTemplate
from tests.small_models import gpt_neox

JA = headings(ALPACA_JA)


def custom(with_input: str, without_input: str) -> PromptTemplate:
    return PromptTemplate("custom", with_input, without_input)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (ALPACA_JA, ("### 指示:", "### 入力:", "### 応答:")),
        (ALPACA_EN, ("### Instruction:", "### Input:", "### Response:")),
        (custom("質問: {instruction}\n文: {input}\n答: ", "質問: {instruction}\n答: "), ("質問:", "文:", "答:")),
        (custom("## Q\n{instruction}\n{input}\n## A\n", "## Q\n{instruction}\n## A\n"), ("## Q\n", "## A\n")),
        # A bare word, a sign alone, and what stands behind a field in its line are no headings.
        (custom("質問\n{instruction}について\n> {input}\n---\n", "{instruction}\n回答\n"), ()),
        (dataclasses.replace(ALPACA_JA, special_tokens=("<|im_start|>",), end="<|im_end|>"), ()),
    ],
)
def test_headings_are_the_templates_own(template, expected):
    assert headings(template) == expected
    assert stop_texts(template) == [f"\n{heading}" for heading in expected]


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ("富士山です。\n\n### 応答:\n東京", "富士山です。", "heading"),
        ("富士山です。\n　 ### 指示:", "富士山です。", "heading"),
        ("### 応答:\n富士山", "", "heading"),
        ("本文の「### 応答:」は見出しです。", "本文の「### 応答:」は見出しです。", None),
        ("### 手順\n1. 切る\n### 応答 :", "### 手順\n1. 切る\n### 応答 :", None),
        ("一。終わり\n### 応答:", "一。", "stop"),
    ],
)
def test_a_heading_begins_a_line_and_a_stop_string_stands_anywhere(tokenizer, text, expected, reason):
    assert AnswerEnds(tokenizer, JA, "終わり").cut(text, True) == (expected, reason)


def test_a_heading_that_the_length_limit_cut_in_two_is_left_out(tokenizer):
    ends = AnswerEnds(tokenizer, JA)
    assert ends.cut("春\n### 応", is_whole=False).text == "春"
    assert ends.cut("春\n### 応", is_whole=True).text == "春\n### 応"
    assert ends.cut("春\n### 夏", is_whole=False).text == "春\n### 夏"


def divisions(text: str) -> list[list[str]]:
    """A text in one, two and three parts, in every way, and in its characters."""
    inside = range(1, len(text))
    cuts = [(), *itertools.combinations(inside, 1), *itertools.combinations(inside, 2), tuple(inside)]
    return [[text[a:b] for a, b in itertools.pairwise([0, *cut, len(text)])] for cut in cuts]


FAMILIES = ["open-calm", "rinna", "abeja", "llama-2", "sarashina", "gemma-3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_heading_is_found_with_its_last_token_however_it_is_divided(small_base, family):
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    for parts in divisions("\n### 応答:"):
        ends = AnswerEnds(tokenizer, JA)
        tokens = encode_answer(tokenizer, "春です。")
        for part in parts:
            tokens += encode_answer(tokenizer, part)
        complete = [ends.complete(tokens[:length]) for length in range(1, len(tokens) + 1)]
        assert complete == [False] * (len(tokens) - 1) + [True], (parts, text_of(tokenizer, tokens))
        assert ends.cut(text_of(tokenizer, tokens), False) == ("春です。", "heading")


def byte_tokens(tokenizer, text: str) -> list[int]:
    """A token for each byte."""
    names = bytes_to_unicode()
    return tokenizer.convert_tokens_to_ids([names[byte] for byte in text.encode()])


def test_half_characters_end_nothing_and_whole_ones_do(tokenizer):
    ends = AnswerEnds(tokenizer, JA, ["終"])
    for text, reason in (("春\n### 応答:", "heading"), ("春終", "stop")):
        tokens = byte_tokens(tokenizer, text)
        complete = [ends.complete(tokens[:length]) for length in range(1, len(tokens) + 1)]
        assert complete == [False] * (len(tokens) - 1) + [True]
        assert ends.cut(text_of(tokenizer, tokens), False) == ("春", reason)


PIECES = ["春", "\n", "### ", "#", "指示", "応答", ":", "### 応答:", " ", "　", "。", "終わり", "終", "😀", "Input"]


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.booleans(), st.booleans())
def test_what_is_streamed_is_the_answer_and_nothing_of_what_ended_it(tokenizer, parts, in_bytes, ended):
    ends = AnswerEnds(tokenizer, JA, ["終わり"])
    encoded = [byte_tokens(tokenizer, part) if in_bytes else encode_answer(tokenizer, part) for part in parts]
    tokens = [*itertools.chain(*encoded)]
    lengths = range(1, len(tokens) + 1)
    length = next((length for length in lengths if ends.complete(tokens[:length])), None)
    texts = [ends.cut(text_of(tokenizer, tokens[:length]), True).reason for length in lengths]
    assert length == next((length for length, reason in zip(lengths, texts, strict=True) if reason), None)
    tokens = tokens[:length] if length else tokens + [eos_id(tokenizer)] * ended
    written = []
    streamer = CharacterStreamer(tokenizer, written.append, ends)
    streamer.put(torch.tensor([[5, 6]]))  # the prompt
    for token in tokens:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(written) == ends.cut(text_of(tokenizer, tokens), ended and not length).text


def test_what_was_held_back_is_released_as_soon_as_it_is_no_heading(tokenizer):
    written = []
    streamer = CharacterStreamer(tokenizer, written.append, AnswerEnds(tokenizer, JA))
    streamer.put(torch.tensor([[5]]))
    seen = []
    for part in ("春", "\n", "#", "##", " ", "応", "援", "\n", "###"):
        for token in encode_answer(tokenizer, part):
            streamer.put(torch.tensor([token]))
        seen.append("".join(written))
    assert seen == ["春"] * 6 + ["春\n### 応援"] * 3


ANSWERS = {
    "春です。": Answer("春です。", "eos", 0),
    "夏です。\n\n### 応答:\n秋です。": Answer("夏です。", "heading", 0),
    "「### 指示:」は見出しです。": Answer("「### 指示:」は見出しです。", "eos", 0),
    "\n### 指示:\n秋": Answer("", "heading", 0),
    "冬です。終わりました。": Answer("冬です。", "stop", 0),
    "とても長い" * 20: Answer("", "length", 0),
    "### 手順\n1. 焼く\n  ### 入力:": Answer("### 手順\n1. 焼く", "heading", 0),
}
LIMIT = 40
STEP = 50
"""Tokens that each prompt has more than the one before: a position says whose answer it is in, and where."""


@pytest.fixture(scope="module")
def scripted(tokenizer):
    """A model that answers a prompt of about n × STEP tokens with the n-th of ANSWERS, and the prompts."""
    model = gpt_neox(len(tokenizer)).eval()
    scripts = [[*encode_answer(tokenizer, text), eos_id(tokenizer)] for text in ANSWERS]
    prompts = [[7] * (number * STEP + 1) for number in range(len(scripts))]

    def write(module, args, kwargs, output):
        positions = kwargs["position_ids"].expand(*kwargs["input_ids"].shape)
        kept = kwargs.get("logits_to_keep", 0)  # the last so many of each row, 0 for all, or the places of those kept
        positions = positions[:, kept if isinstance(kept, torch.Tensor) else slice(-kept, None)]
        logits = torch.full_like(output.logits, -50.0)
        for row, place_in_row in itertools.product(range(len(logits)), range(logits.shape[1])):
            number, place = divmod(int(positions[row, place_in_row]), STEP)
            script = scripts[number]
            logits[row, place_in_row, script[min(place, len(script) - 1)]] = 50.0
        output.logits = logits
        return output

    handle = model.register_forward_hook(write, with_kwargs=True)
    yield model, prompts, scripts
    handle.remove()


WAYS = {"greedy": {}, "sampled": {"temperature": 1.0, "top_p": 0.9}, "beams": {"num_beams": 3}}


@pytest.mark.parametrize("guesses", [0, 2, 5])
@pytest.mark.parametrize("budget", [1, 700])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("padding", ["own", "end of text"])
def test_answers_end_alike_in_every_batch_and_every_way_of_decoding(
    tokenizer, scripted, monkeypatch, way, budget, padding, guesses
):
    model, prompts, scripts = scripted

    def right(lookup, most):  # whatever ends an answer is a guess that is accepted
        number, place = divmod(len(lookup._tokens) - 1, STEP)
        return (scripts[number][place:] + [7] * most)[:most]

    monkeypatch.setattr(Lookup, "drafts", right)
    monkeypatch.setattr(Acceptance, "drafts", lambda *_: guesses)
    before = tokenizer.pad_token
    tokenizer.pad_token = before if padding == "own" else tokenizer.eos_token
    settings = {"max_new_tokens": LIMIT, "stop_strings": ["終わり"], **WAYS[way]}
    try:
        found = {
            place: answer
            for _, place, answer in generate_all(model, tokenizer, prompts, [settings], budget, range(7), JA)
        }
        together = generate(model, tokenizer, prompts, settings, headings=JA)
    finally:
        tokenizer.pad_token = before
    ends = AnswerEnds(tokenizer, JA, "終わり")
    for place, (script, expected) in enumerate(zip(scripts, ANSWERS.values(), strict=True)):
        complete = next((n for n in range(1, len(script)) if ends.complete(script[:n])), min(len(script), LIMIT))
        text = text_of(tokenizer, script[:LIMIT]) if expected.finish_reason == "length" else expected.text
        assert found[place] == together[place] == Answer(text, expected.finish_reason, complete)


def test_without_headings_an_answer_goes_on(tokenizer, scripted):
    model, prompts, _ = scripted
    (answer,) = generate(model, tokenizer, prompts[1:2], {"max_new_tokens": LIMIT})
    assert (answer.finish_reason, "### 応答:" in answer.text) == ("eos", True)


def test_a_person_sees_nothing_of_the_heading(tokenizer, scripted, capsys):
    model, prompts, _ = scripted
    settings = {"max_new_tokens": LIMIT}
    ends = AnswerEnds(tokenizer, JA)
    for place, text in ((1, "夏です。"), (3, ""), (6, "### 手順\n1. 焼く")):
        asked = SimpleNamespace(
            tokenizer=tokenizer, generation=settings, ends=lambda _: ends,
            prompt=lambda *_, ids=prompts[place]: SimpleNamespace(ids=ids, context_shortened=False),
            answer=lambda ids, streamer, *_: generate(model, tokenizer, [ids], settings, streamer, JA)[0],
        )  # fmt: skip
        ask(asked, "問い", "", set())
        assert capsys.readouterr().out == f"{text}\n"
