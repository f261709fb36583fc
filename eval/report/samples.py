"""Rows worth reading: where tuning lost most, where it gained most, and some drawn at random. No torch here."""

import random
from collections.abc import Mapping, Sequence

from eval.metrics.catalogue import HEADLINE
from eval.predictions import BASE, TUNED, Prediction
from eval.render.numbers import number
from eval.report.view import WORDS
from eval.scoring.results import Results
from sft.data.records import category_label
from sft.page.blocks import Block, Heading, Quote, Sample, Span, paragraph
from sft.system.shared_spans import SHORTEST, shared_spans
from sft.system.visible import counted

EACH = 10

Scores = Mapping[str, Mapping[str, float | None]]


def sample_blocks(results: Results, predictions: Sequence[Prediction]) -> list[Block]:
    """The worst regressions, the best gains and random rows by the headline metric, `EACH` of them."""
    answers = {(prediction.example.index, prediction.system): prediction for prediction in predictions}
    scores: dict[str, dict[str, float | None]] = {}
    for row in results.samples:
        scores.setdefault(row.index, {})[row.system] = row.scores[HEADLINE.key]
    name, seed = HEADLINE.name, results.settings.seed
    titles = (f"Worst regressions in {name}", f"Best gains in {name}", f"Random rows (seed {seed})")
    out: list[Block] = [paragraph(WORDS["samples"].format(shortest=SHORTEST))]
    paired = any(_change(row) is not None for row in scores.values())
    nothing = paragraph("None." if paired else f"Needs the systems {BASE} and {TUNED}.")
    for title, indices in zip(titles, chosen(scores, EACH, seed), strict=True):
        out.append(Heading(3, title))
        out += [_sample({name: answers[i, name] for name in scores[i]}, scores[i]) for i in indices] or [nothing]
    return out


def chosen(scores: Scores, each: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Row indices: worst first, best first, and drawn among the rest; no row is in two of them."""
    gains = {index: change for index, row in scores.items() if (change := _change(row)) is not None}
    order = sorted(gains, key=lambda index: (gains[index], index))
    worst = [index for index in order[:each] if gains[index] < 0]
    best = [index for index in order[::-1][:each] if gains[index] > 0]
    rest = sorted(scores.keys() - {*best, *worst})
    return worst, best, random.Random(seed).sample(rest, min(each, len(rest)))


def quoted(text: str, source: str) -> tuple[Span, ...]:
    """Where `text` repeats `source`; a span is never whitespace alone."""
    return tuple(Span(*span) for span in shared_spans(text, source) if text[slice(*span)].strip())


def _change(row: Mapping[str, float | None]) -> float | None:
    base, tuned = row.get(BASE), row.get(TUNED)
    return None if base is None or tuned is None else tuned - base


def _sample(answers: Mapping[str, Prediction], scores: Mapping[str, float | None]) -> Sample:
    *_, last = answers.values()
    example, change = last.example, _change(scores)
    title = f"Row {example.index}" if example.named == example.index else example.named
    texts = [Quote("Instruction", example.instruction)]
    if example.input.strip():
        texts.append(Quote("Context", example.input, quoted(example.input, last.text)))
    texts.append(Quote("Reference", "\n".join(example.references)))
    quotes = []
    for name, value in scores.items():
        answer = answers[name]
        label = f"{name} · {number(value)} · {answer.finish_reason} · {counted(answer.output_tokens, 'token')}"
        quotes.append(Quote(label, answer.text, quoted(answer.text, example.input)))
    return Sample(
        title=f"{title} · {category_label(example.category)}",
        change="" if change is None else number(change, signed=True),
        texts=tuple(texts),
        answers=tuple(quotes),
    )
