"""Rows worth reading: where tuning lost most, where it gained most, and some drawn at random. No torch here."""

import random
from collections.abc import Mapping, Sequence

from eval.predictions import Prediction
from eval.render.blocks import Block, Heading, Paragraph, Quote, Sample, Span, paragraph
from eval.report.view import BASE, HEADLINE, TUNED, Results, name_of, number, seed_of

EACH = 10
SHORTEST_SPAN = 4
_SPAN_SEARCHED = 4000

Answers = Mapping[str, Mapping[str, Prediction]]
Scores = Mapping[str, Mapping[str, float | None]]


def sample_blocks(results: Results, predictions: Sequence[Prediction], each: int = EACH) -> list[Block]:
    """The worst regressions, the best gains and random rows by the headline metric, `each` of them."""
    answers: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        answers.setdefault(prediction.example.index, {})[prediction.system] = prediction
    scores: dict[str, dict[str, float | None]] = {}
    for row in results["samples"]:
        scores.setdefault(row["index"], {})[row["system"]] = row["scores"].get(HEADLINE)
    worst, best, drawn = chosen(scores, each, seed := seed_of(results))
    name = name_of(HEADLINE)
    out: list[Block] = [
        paragraph(
            f"Marked: what an answer shares with its context in {SHORTEST_SPAN} characters or more in a row, and in "
            "the context what the last answer took from it."
        )
    ]
    for title, indices in (
        (f"Worst regressions in {name}", worst),
        (f"Best gains in {name}", best),
        (f"Random rows (seed {seed})", drawn),
    ):
        out.append(Heading(3, title))
        out += [_sample(answers[index], scores[index]) for index in indices] or [_nothing(scores)]
    return out


def chosen(scores: Scores, each: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Row indices: worst first, best first, and drawn among the rest; no row is in two of them."""
    gains = {index: change for index, row in scores.items() if (change := _change(row)) is not None}
    order = sorted(gains, key=lambda index: (gains[index], index))
    worst = [index for index in order[:each] if gains[index] < 0]
    best = [index for index in order[::-1][:each] if gains[index] > 0]
    rest = sorted(scores.keys() - {*best, *worst})
    return worst, best, random.Random(seed).sample(rest, min(each, len(rest)))


def shared_spans(text: str, other: str, shortest: int = SHORTEST_SPAN) -> tuple[Span, ...]:
    """Where `text` repeats `other` for `shortest` characters or more: ordered, disjoint, each as long as it can be.

    Taken from left to right, as extractive fragments are (Grusky et al. 2018, N18-1065). A span is never
    whitespace alone.
    """
    grams = {other[at : at + shortest] for at in range(len(other) - shortest + 1)}
    spans, at = [], 0
    while at + shortest <= len(text):
        end = at + shortest
        if text[at:end] not in grams:
            at += 1
            continue
        while end < len(text) and end - at < _SPAN_SEARCHED and text[at : end + 1] in other:
            end += 1
        if text[at:end].strip():
            spans.append(Span(at, end))
        at = end
    return tuple(spans)


def _change(row: Mapping[str, float | None]) -> float | None:
    base, tuned = row.get(BASE), row.get(TUNED)
    return None if base is None or tuned is None else tuned - base


def _nothing(scores: Scores) -> Paragraph:
    both = any(_change(row) is not None for row in scores.values())
    return paragraph("None." if both else f"Needs the systems {BASE} and {TUNED}.")


def _sample(answers: Mapping[str, Prediction], scores: Mapping[str, float | None]) -> Sample:
    example = answers[next(iter(scores))].example
    change = _change(scores)
    texts = [Quote("Instruction", example.instruction)]
    if example.input.strip():
        last = answers[list(scores)[-1]].text
        texts.append(Quote("Context", example.input, shared_spans(example.input, last)))
    texts.append(Quote("Reference", "\n".join(example.references)))
    quotes = []
    for name, value in scores.items():
        answer = answers[name]
        label = f"{name} · {number(value)} · {answer.finish_reason} · {answer.output_tokens} tokens"
        quotes.append(Quote(label, answer.text, shared_spans(answer.text, example.input)))
    return Sample(
        title=f"Row {example.index} · {example.category}",
        change="" if change is None else number(change, signed=True),
        texts=tuple(texts),
        answers=tuple(quotes),
    )
