"""Questions become a file of answers; an interrupted call goes on where it stopped."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from sft.ask.questions import added_columns
from sft.config.repetition_penalty import penalty_hazards
from sft.data.read import Asked
from sft.generation.answerer import Answerer
from sft.generation.pace import Pace
from sft.prompt.encode import eos_id
from sft.prompt.encoded_rows import digest
from sft.prompt.headings import headings
from sft.prompt.lost_turns import lost_turns
from sft.system.errors import UserError, say, warn
from sft.system.files import write_whole
from sft.system.progress import Progress
from sft.system.visible import counted
from sft.system.waiting import EstimatedBar


def answer_file(answerer: Answerer, questions: Sequence[Asked], progress: Progress, system: str) -> None:
    """Answer all questions in batches and write their rows, in their order, with the answers as further columns.

    `progress` is of the file that is `claimed`; its suffix says whether that is CSV or JSON lines. Answers that an
    interrupted call with the same questions, model and settings has found are not looked for again.
    """
    names = added_columns(questions)
    results: list[tuple[str, str]] = [("", "error")] * len(questions)
    prompts: dict[int, list[int]] = {}
    for position, question in enumerate(questions):
        if question.problem:
            continue
        try:
            prompts[position] = answerer.prompt(question.instruction, question.input, history=question.history).ids
        except UserError as error:
            say(f"{question.place}: {error}", sys.stderr)
    settings = json.dumps([answerer.generation, headings(answerer.template)], sort_keys=True)
    progress.begin(digest(answerer.identity, system, settings, json.dumps(questions)))
    positions, ids = list(prompts), list(prompts.values())
    contexts = [questions[position].input for position in positions]
    warn(penalty_hazards(answerer.generation, contexts, ids, eos_id(answerer.tokenizer)))
    warn(lost_turns(answerer.template, [question.history for question in questions]))
    left = [place for place in range(len(ids)) if place not in progress.done]
    asked = [ids[place] for place in left]
    pace = Pace(answerer.config.eval.batch_tokens, answerer.generation["max_new_tokens"])
    counts = {"total": len(ids), "initial": len(progress.done), "unit": "answer", "desc": "answering"}
    with EstimatedBar(lambda: pace.seconds_left, **counts) as bar:
        watch = pace.expect([*map(len, asked)], bar.update_time)
        for _, number, answer in answerer.answer_all(asked, None, None, watch):
            progress.add(left[number], [answer.text, answer.finish_reason])
            pace.ended()
            bar.update()
    for place, (text, finish_reason) in progress.all_results().items():
        results[positions[place]] = text, finish_reason
    rows = [
        question.columns | dict(zip(names, found, strict=True))
        for question, found in zip(questions, results, strict=True)
    ]
    write_whole(progress.path, table_text(rows) if progress.path.suffix.lower() == ".csv" else json_lines(rows), True)
    progress.remove()
    without = f" to {len(rows)} questions" if len(ids) < len(rows) else ""
    say(f"{progress.path}: {counted(len(ids), 'answer')}{without}, in the column {names[0]}", sys.stderr)


def json_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows, a JSON object a line."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a CSV file that Excel opens: marked as UTF-8; what is no text is written as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return "\ufeff" + text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
