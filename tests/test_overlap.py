"""The longest verbatim overlap against brute force, the prompt's exclusion, speed and memory."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.memorised import PROMPT_PASSAGE, Overlap, longest_overlaps, without_prompt

SMALL = st.text("abc", max_size=12)
LONGER = st.text("ab", max_size=40)


def longest_common(pieces: list[str], outputs: list[str]) -> int:
    """Try every substring."""
    found = (p[i:j] for p in pieces for i in range(len(p)) for j in range(i + 1, len(p) + 1))
    return max((len(part) for part in found if any(part in output for output in outputs)), default=0)


@settings(max_examples=300)
@given(st.lists(SMALL, max_size=5), st.lists(SMALL, max_size=5))
def test_lengths_are_those_of_brute_force(answers: list[str], outputs: list[str]) -> None:
    training = {str(n): output for n, output in enumerate(outputs)}
    for answer, found in zip(answers, longest_overlaps(answers, [""] * len(answers), training), strict=True):
        assert found.length == len(found.passage) == longest_common([answer], outputs)
        assert found.passage in answer
        first = next((n for n, output in enumerate(outputs) if found.length and found.passage in output), None)
        assert found.training_index == (None if first is None else str(first))


@given(LONGER, LONGER, st.lists(LONGER, max_size=3))
def test_prompt_passages_are_cut_out(answer: str, prompt: str, outputs: list[str]) -> None:
    width = PROMPT_PASSAGE
    windows = [answer[place : place + width] in prompt for place in range(len(answer) - width + 1)]
    kept = "".join(
        "|" if any(windows[max(0, place - width + 1) : place + 1]) else character
        for place, character in enumerate(answer)
    )
    pieces = [piece for piece in kept.split("|") if piece]
    assert without_prompt(answer, prompt) == pieces
    (found,) = longest_overlaps([answer], [prompt], dict(zip("abc", outputs, strict=False)))
    assert found.length == longest_common(pieces, outputs)


def test_the_prompts_own_text_does_not_count() -> None:
    context = "高さ333メートルの東京タワーは芝公園にある。"
    answer = "答え：" + context + "完成は昭和です。"
    training = {"1": context + "完成は昭和三十三年。", "2": "完成は昭和です"}
    assert longest_overlaps([answer], [""], training) == [Overlap(len(context) + 5, context + "完成は昭和", "1")]
    assert longest_overlaps([answer], [context], training) == [Overlap(7, "完成は昭和です", "2")]


def test_nothing_shared_and_nothing_given() -> None:
    assert longest_overlaps(["東京", ""], ["", ""], {"1": "大阪"}) == [Overlap(0, "", None)] * 2
    assert longest_overlaps(["東京"], [""], {}) == [Overlap(0, "", None)]
    assert longest_overlaps([], [], {"1": "大阪"}) == []
    with pytest.raises(ValueError, match="zip"):
        longest_overlaps(["東京"], [], {})


def test_15000_outputs_against_500_answers_in_seconds() -> None:
    draw = random.Random(0)
    letters = [chr(ord("一") + n) for n in range(1000)]
    training = {str(n): "".join(draw.choices(letters, k=165)) for n in range(15_000)}
    answers = ["".join(draw.choices(letters, k=150)) + training[str(n * 29)][:40] for n in range(500)]
    start = time.process_time()
    found = longest_overlaps(answers, [""] * 500, training)
    assert time.process_time() - start < 60
    assert {(o.length >= 40, o.training_index == str(n * 29)) for n, o in enumerate(found)} == {(True, True)}


def test_memory_grows_with_the_answers_and_stays_small() -> None:
    draw = random.Random(0)
    answers = ["".join(draw.choices("あいうえおかきくけこ", k=200)) for _ in range(100)]
    tracemalloc.start()
    longest_overlaps(answers, [""] * 100, {str(n): answer[::-1] for n, answer in enumerate(answers * 10)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak * 5 < 1e9  # 500 answers would take five times as much
