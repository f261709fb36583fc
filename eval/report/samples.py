"""Rows worth reading: where tuning lost most, where it gained most, and some drawn at random. No torch here."""

import random
from collections.abc import Mapping, Sequence

from eval.metrics.catalogue import HEADLINE
from eval.metrics.metric import Metric
from eval.predictions import BASE, TUNED, Prediction
from eval.render.numbers import number
from eval.report.names import category_word, metric_word, system_word
from eval.scoring.results import Results
from sft.generation.settings import FinishReason
from sft.page.blocks import Block, Heading, Quote, Sample, Span, paragraph
from sft.system.shared_spans import SHORTEST, shared_spans
from sft.system.texts import Count, text, told

EACH = 10

Scores = Mapping[str, Mapping[str, float | None]]


def sample_blocks(results: Results, predictions: Sequence[Prediction]) -> list[Block]:
    """The worst regressions, the best gains and random rows by the headline metric, `EACH` of them."""
    answers = {(prediction.example.index, prediction.system): prediction for prediction in predictions}
    scores = scores_by_row(results)
    metric, seed = metric_word(HEADLINE), results.settings.seed
    named = bool(results.rows.categories)
    titles = (text("body.worst", metric=metric), text("body.gains", metric=metric), text("body.random", seed=seed))
    out: list[Block] = [paragraph(text("body.samples_note", shortest=SHORTEST))]
    paired = any(change_of(row) is not None for row in scores.values())
    nothing = paragraph(text("body.no_sample") if paired else text("body.needs_a_pair"))
    for title, indices in zip(titles, chosen(scores, EACH, seed), strict=True):
        out.append(Heading(3, title))
        given = ({name: answers[i, name] for name in scores[i]} for i in indices)
        out += [sample(to_row, scores[i], named) for i, to_row in zip(indices, given, strict=True)] or [nothing]
    return out


def scores_by_row(results: Results, metric: Metric = HEADLINE) -> dict[str, dict[str, float | None]]:
    """Row's index → system → the metric."""
    scores: dict[str, dict[str, float | None]] = {}
    for row in results.samples:
        scores.setdefault(row.index, {})[row.system] = row.scores[metric.key]
    return scores


def chosen(scores: Scores, each: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Row indices: worst first, best first, and drawn among the rest; no row is in two of them."""
    gains = {index: change for index, row in scores.items() if (change := change_of(row)) is not None}
    order = sorted(gains, key=lambda index: (gains[index], index))
    worst = [index for index in order[:each] if gains[index] < 0]
    best = [index for index in order[::-1][:each] if gains[index] > 0]
    rest = sorted(scores.keys() - {*best, *worst})
    return worst, best, random.Random(seed).sample(rest, min(each, len(rest)))


def quoted(text: str, source: str) -> tuple[Span, ...]:
    """Where `text` repeats `source`; a span is never whitespace alone."""
    return tuple(Span(*span) for span in shared_spans(text, source) if text[slice(*span)].strip())


def change_of(row: Mapping[str, float | None]) -> float | None:
    """What tuning changed in a row's score; None without both."""
    base, tuned = row.get(BASE), row.get(TUNED)
    return None if base is None or tuned is None else tuned - base


def sample(answers: Mapping[str, Prediction], scores: Mapping[str, float | None], with_category: bool) -> Sample:
    """A row with every system's answer to it; what answers and context share is marked.

    `with_category`: its title says in which category it is, for rows of which some are in one.
    """
    *_, last = answers.values()
    example, change = last.example, change_of(scores)
    title = text("report.row", row=example.index) if example.named == example.index else told(example.named)
    texts = [Quote(text("report.question"), example.instruction)]
    if example.input.strip():
        texts.append(Quote(text("report.passage"), example.input, quoted(example.input, last.text)))
    texts.append(Quote(text("report.reference"), "\n".join(example.references)))
    quotes = []
    for name, value in scores.items():
        answer = answers[name]
        score = [] if value is None else [number(value)]
        ended, tokens = finish_words()[answer.finish_reason], text("body.tokens", tokens=Count(answer.output_tokens))
        label = [system_word(name), *score, ended, tokens]
        quotes.append(Quote(" · ".join(label), answer.text, quoted(answer.text, example.input)))
    return Sample(
        title=f"{title} · {category_word(example.category)}" if with_category else title,
        change="" if change is None else number(change, signed=True),
        texts=tuple(texts),
        answers=tuple(quotes),
    )


def finish_words() -> dict[FinishReason, str]:
    """Why an answer ended, in words."""
    return {
        "eos": text("samples.eos"),
        "heading": text("samples.heading"),
        "stop": text("samples.stop"),
        "length": text("samples.length"),
        "error": text("samples.error"),
        "chosen": text("samples.chosen"),
    }
