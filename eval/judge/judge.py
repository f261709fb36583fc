"""`python -m eval judge`: a model judges answers, each by itself, and two in both orders. No torch here."""

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from eval.border import json_text
from eval.compare import directory_beside, read_answered, source_of
from eval.endpoint.kept import Kept
from eval.endpoint.server import Request, ask_all, say_plan
from eval.endpoint.settings import Server, as_directory, request_settings
from eval.judge.people import choices_in
from eval.judge.prompts import SHA256, pair_request, score_request
from eval.judge.report import judgement_title, print_judgement, report
from eval.judge.results import Judged, choice_of, results_of
from eval.judge.rows import judged_rows
from eval.judge.verdict import Verdict, verdict_of
from eval.predictions import BASE, TUNED, Prediction, read_predictions, run_name
from eval.render.markdown import render_markdown
from eval.report.first_screen import ROWS_PAGE
from eval.scoring.common_rows import common_rows, in_words
from eval.scoring.measured import by_system
from eval.scoring.rows import Rows
from sft.page.html import render_html
from sft.system.errors import UserError, say
from sft.system.files import alone_in, output_directory, write_whole
from sft.system.texts import language, text

DEFAULTS = {"temperature": 0, "max_tokens": 512}
REPLIES = "replies.jsonl"
VERDICTS = "verdicts.jsonl"


class ToJudge(NamedTuple):
    """Answers to the same rows by system, the pair that is compared, where results go, and what they are about.

    `known_as` are the names that each of the pair may have on a sheet for people.
    """

    answers: dict[str, list[Prediction]]
    pair: tuple[str, str] | None
    known_as: tuple[tuple[str, ...], ...]
    directory: Path
    title: str


def judge(
    specs: Sequence[str],
    server: Server,
    output: Path | None = None,
    sheet: Path | None = None,
    key: Path | None = None,
    dry_run: bool = False,
    words: Sequence[str] = (),
    rows: int | None = None,
    seed: int = 0,
) -> None:
    """Judge the answers of one run or file, or those of two, and report.

    `specs` are as for `compare`; of one that names no system all are judged, and base and tuned, or the only two, are
    compared. `sheet` is a filled-in one of `rate`, with which the judge's choices are compared. Every reply is kept as
    it comes: the same command goes on where it stopped. `rows` of all rows are judged, drawn by `seed` and each row, so
    that more of them hold these (None: all). Raises UserError as `ask_all` and `choices_in` do.
    """
    settings, others = request_settings(words, DEFAULTS)
    if others:
        raise UserError(f"command line: {others[0]} is not asked for here; request.key=value is")
    found = _to_judge(specs, f"judge-{as_directory(server.model)}")
    total = len(next(iter(found.answers.values())))
    found = _drawn(found, rows, seed)
    people = None
    if sheet:
        if not found.pair:
            raise UserError(f"{sheet}: compares two systems, and here are {', '.join(found.answers)}; name two")
        people = choices_in(sheet, key, found.known_as)
    its_rows = Rows([one.example for one in next(iter(found.answers.values()))])
    scores, pairs = _requests(found, settings)
    requests = [one for asked in (*scores.values(), *filter(None, pairs)) for one in asked]
    about: dict[str, Any] = {"model": server.model, "endpoint": server.url, "request": settings, "prompts": SHA256}
    if len(its_rows.examples) < total:
        about["drawn"] = {"of": total, "seed": seed}
    directory = output_directory(output or found.directory)
    with alone_in(directory), Kept(directory / REPLIES) as kept:
        say_plan(server, requests, kept)
        if dry_run:
            return
        replies = iter(ask_all(server, requests, kept, text("judge.judging")))
        verdicts = {name: [verdict_of("score", next(replies)) for _ in asked] for name, asked in scores.items()}
        orders = [(verdict_of("pair", next(replies)), verdict_of("pair", next(replies))) if a else None for a in pairs]
        judged = Judged(its_rows, found.answers, found.pair, verdicts, orders)
        results = results_of(judged, about, people)
        blocks = report(results, found.title)
        texts = {"judge.md": render_markdown(blocks), "judge.html": render_html(blocks, language())}
        texts |= {"judge.json": json_text(results.json()), VERDICTS: "".join(_lines(judged))}
        texts[ROWS_PAGE] = judged_rows(judged, judgement_title(results, found.title))
        for name, content in texts.items():
            write_whole(directory / name, content)
    print_judgement(results, found.title, Console())
    say(text("judge.written", path=directory / "judge.md"))


def _to_judge(specs: Sequence[str], name: str) -> ToJudge:
    """What `specs` name, and a directory of this `name` beside it. Raises UserError for more than two."""
    if len(specs) > 2:
        raise UserError(f"a judge compares two, not {len(specs)}: python -m eval judge RUN, or judge A B")
    if len(specs) == 2:
        answered = read_answered(specs)
        common = common_rows({one.name: one.predictions for one in answered})
        if any(common.alone.values()):
            say(in_words(len(next(iter(common.answers.values()))), common.alone))
        named = [dataclasses.replace(p, system=name) for name, given in common.answers.items() for p in given]
        first, second = common.answers
        in_order = by_system(named)
        return ToJudge(
            {first: in_order[first], second: in_order[second]},
            (first, second),
            ((first,), (second,)),
            directory_beside(answered, name),
            f"{first} / {second}",
        )
    path, chosen = source_of(specs[0])
    predictions = [one for one in read_predictions(path) if chosen in (None, one.system)]
    if not predictions:
        raise UserError(f"{path}: no answers of system {chosen!r}")
    answers = by_system(predictions)
    names, run = tuple(answers), run_name(path)
    pair = (BASE, TUNED) if {BASE, TUNED} <= set(names) else (names[0], names[1]) if len(names) == 2 else None
    known_as = tuple((system, f"{run}:{system}") for system in pair or ())
    return ToJudge(answers, pair, known_as, path.parent / name, run)


def _drawn(found: ToJudge, count: int | None, seed: int) -> ToJudge:
    """What is to be judged on `count` rows, drawn by the seed and each row alone, in their order. None: on all."""
    if count is None:
        return found
    if count < 1:
        raise UserError(f"--rows {count}: must be at least 1")
    asked = next(iter(found.answers.values()))
    order = sorted(range(len(asked)), key=lambda at: random.Random(f"{seed} {asked[at].example.index}").random())
    places = sorted(order[:count])
    return found._replace(answers={name: [given[at] for at in places] for name, given in found.answers.items()})


def _requests(
    found: ToJudge, settings: dict[str, Any]
) -> tuple[dict[str, list[Request]], list[tuple[Request, Request] | None]]:
    """What is asked of each answer, by system, and of each row's pair, in both orders."""
    scores = {
        name: [score_request(one.example, _said(one), settings) for one in given]
        for name, given in found.answers.items()
    }
    pairs: list[tuple[Request, Request] | None] = []
    if found.pair:
        for one, other in zip(*(found.answers[name] for name in found.pair), strict=True):
            row, first, second = one.example, _said(one), _said(other)
            both = pair_request(row, first, second, settings), pair_request(row, second, first, settings)
            pairs.append(None if first.strip() == second.strip() else both)
    return scores, pairs


def _said(prediction: Prediction) -> str:
    """What a reader sees of an answer: nothing of one that failed."""
    return "" if prediction.finish_reason == "error" else prediction.text


def _lines(judged: Judged) -> Iterator[str]:
    """verdicts.jsonl: every verdict with the judge's own words; `choice` is what a row's two orders come to."""
    for at, row in enumerate(judged.rows.examples):
        named = {"index": row.index, "category": row.category, "group": row.group}
        for name, found in judged.scores.items():
            yield _line({**named, "asked": "score", "system": name}, found[at])
        if judged.pair and (orders := judged.orders[at]):
            for verdict, (a, b) in zip(orders, (judged.pair, judged.pair[::-1]), strict=True):
                yield _line({**named, "asked": "pair", "A": a, "B": b, "choice": choice_of(orders)}, verdict)


def _line(named: dict[str, Any], verdict: Verdict) -> str:
    return json.dumps({**named, **verdict._asdict()}, ensure_ascii=False) + "\n"
