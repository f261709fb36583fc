"""`python -m eval answer`: rows are answered by what a server serves, and become a predictions.jsonl. No torch here.

Its answers stand in the same reports as those of a run: `python -m eval score`, `compare` and `judge` read them.
"""

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.endpoint.kept import Kept
from eval.endpoint.reply import Reply
from eval.endpoint.server import Failure, Request, ask_all, say_plan
from eval.endpoint.settings import CHAT, Server, as_directory, request_settings
from eval.predictions import IN_RUN, Prediction, read_predictions, write_predictions
from sft.config.load import data_section
from sft.data.files.sources import is_local
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.generation.settings import FinishReason
from sft.prompt.headings import headings, stop_texts
from sft.prompt.lost_turns import lost_turns
from sft.prompt.template import CHAT_TEMPLATES, TEMPLATES, PromptTemplate
from sft.system.errors import UserError, say, warn
from sft.system.files import alone_in, output_directory, parse_json, read_bytes
from sft.system.visible import counted

DEFAULTS = {"temperature": 0, "max_tokens": 512}
REPLIES = "replies.jsonl"
FINISHES: dict[str | None, FinishReason] = {
    "stop": "eos",
    "eos": "eos",
    "eos_token": "eos",
    "stop_sequence": "stop",
    "length": "length",
    None: "stop",
}
"""What servers call the end of an answer; any other word is an error."""


class Asked(NamedTuple):
    """The rows to answer, and the answers of other systems to them that go into the same file."""

    rows: list[Example]
    others: list[Prediction]


def answer_file(
    file: str,
    server: Server,
    prompt: str = CHAT,
    system: str | None = None,
    output: Path | None = None,
    force: bool = False,
    dry_run: bool = False,
    words: Sequence[str] = (),
) -> None:
    """Answer the rows of `file`, as `data.path` reads them, or those of a predictions.jsonl, and write predictions.

    The answers go into `output`, or a directory that is named for file and model, under the name `system`, or the
    model's own; answers of other systems in a predictions.jsonl are taken along. Every reply is kept beside them as it
    comes, so the same command goes on where it stopped, and asks again for what failed. Raises UserError as `ask_all`
    does, and where other answers would be replaced, unless `force`.
    """
    template = TEMPLATES.get(prompt)
    stops = {"stop": stop_texts(template)} if template else {}
    settings, others = request_settings(words, DEFAULTS | stops)
    asked = read_rows(file, system or server.model, others)
    generation = {"model": server.model, "endpoint": server.url, "prompt": prompt, **settings}
    planned = [_unanswered(row, system or server.model, prompt, generation) for row in asked.rows]
    requests = [Request({**_question(row, prompt), **settings}) for row in asked.rows]
    if template:
        warn(lost_turns(template, [row.history for row in asked.rows]))
    path = _place(file, server, output)
    directory = output_directory(path.parent)
    with alone_in(directory), Kept(directory / REPLIES) as kept:
        if not force:
            _check_replaces_nothing(path, [*asked.others, *planned])
        say_plan(server, requests, kept)
        if dry_run:
            return
        replies = ask_all(server, requests, kept, "answering")
        answers = [_answered(*pair, template) for pair in zip(planned, replies, strict=True)]
        write_predictions([*asked.others, *answers], path)
    warn(_odd_endings(replies))
    ended = Counter(answer.finish_reason for answer in answers)
    empty = sum(not answer.text for answer in answers)
    counts = [f"{n} {reason}" for reason, n in ended.most_common()] + [f"{empty} empty"] * bool(empty)
    say(f"{path}: {counted(len(answers), 'answer')} of {system or server.model} ({', '.join(counts)})")
    say(f"python -m eval score {path}")


def read_rows(file: str, system: str, words: Sequence[str]) -> Asked:
    """The rows of a file of rows or of predictions. `words` are `data.key=value`, for the first alone."""
    if _holds_predictions(file):
        if words:
            raise UserError(f"command line: {words[0]} says how rows are read, and {file} holds predictions")
        found = list(read_predictions(Path(file)))
        rows = {one.example.index: one.example for one in found}
        return Asked(list(rows.values()), [one for one in found if one.system != system])
    data = data_section([file], words)
    loaded = load_data(data.sources, data.leave_out, data.groups)
    for line in (*loaded.read_report(), *loaded.drop_report()):
        say(line, sys.stderr)
    if loaded.too_many_unusable(data.allow_dropped):
        raise UserError(
            f"{file}: too many rows cannot be used; mend them, or answer the rest with data.allow_dropped=1"
        )
    return Asked([*examples_of(loaded.rows)], [])


def _holds_predictions(file: str) -> bool:
    if not is_local(file) or not file.endswith(".jsonl") or not Path(file).is_file():
        return False
    first = next((line for line in read_bytes(Path(file)).splitlines() if line.strip()), b"")
    try:
        row = parse_json(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and {"system", "example"} <= row.keys()


def _place(file: str, server: Server, output: Path | None) -> Path:
    """Where the predictions go: beside others, or into a directory that the other commands take for a run's."""
    if output:
        path = output / IN_RUN.name
    elif _holds_predictions(file):
        path = Path(file).parent / f"answer-{as_directory(server.model)}" / IN_RUN.name
    else:
        stem = Path(file).name.partition(".")[0]
        path = Path("runs") / f"{as_directory(stem)}-{as_directory(server.model)}" / IN_RUN
    if path.resolve() == Path(file).resolve():
        raise UserError(f"{path}: is what is read; give the answers another --output")
    return path


def _check_replaces_nothing(path: Path, planned: Sequence[Prediction]) -> None:
    """Raise UserError where `path` holds answers to other rows or under other settings."""
    if path.is_file() and [*map(_made_of, read_predictions(path))] != [*map(_made_of, planned)]:
        raise UserError(
            f"{path}: holds answers to other rows, or under other settings, which these would replace: --output DIR "
            "keeps both, --force replaces them"
        )


def _made_of(prediction: Prediction) -> str:
    """What an answer is made of, without itself."""
    known = dataclasses.replace(prediction, text="", finish_reason="error", prompt_tokens=0, output_tokens=0)
    return json.dumps(dataclasses.asdict(known), sort_keys=True)


def _question(row: Example, prompt: str) -> dict[str, Any]:
    """A row as a request has it: a text template's prompt, or the user's message that CHAT_TEMPLATES has."""
    if template := TEMPLATES.get(prompt):
        return {"prompt": str(template.render(row.instruction, row.input, row.history))}
    both = CHAT_TEMPLATES[prompt].format(instruction=row.instruction, input=row.input)
    message = both if row.input else row.instruction
    turns = (*row.history, ("user", message))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _unanswered(row: Example, system: str, prompt: str, generation: dict[str, Any]) -> Prediction:
    question = _question(row, prompt)
    shown = question.get("prompt") or "\n\n".join(turn["content"] for turn in question["messages"])
    return Prediction(system, row, shown, "", "error", 0, 0, generation)


def _answered(planned: Prediction, reply: Reply | Failure, template: PromptTemplate | None) -> Prediction:
    """The prediction with its answer, as a reader sees it; one that failed is an error with an empty answer."""
    if isinstance(reply, Failure):
        return planned
    text, finish = reply.text, FINISHES.get(reply.finish, "error")
    stops = planned.generation.get("stop")
    if finish == "eos" and stops and reply.stopped_at != "":
        # Many servers do not say whether it was a stop string or the end-of-text token.
        finish = "heading" if template and reply.stopped_at in stop_texts(template) else "stop"
    if template and (found := _heading(template).search(text)):  # at its beginning, or where no stops are sent
        text, finish = text[: found.start()], "heading"
    return dataclasses.replace(
        planned,
        text=text.strip(),
        finish_reason=finish,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=reply.output_tokens,
    )


def _odd_endings(replies: Sequence[Reply | Failure]) -> Iterator[str]:
    """A line for each reason that is no end of an answer, with the number of answers that count as failed for it."""
    reasons = Counter(one.finish for one in replies if isinstance(one, Reply) and one.finish not in FINISHES)
    for reason, n in reasons.most_common():
        yield f"{counted(n, 'answer')} with finish_reason {reason!r}, which no answer ends with: counted as failed"


def _heading(template: PromptTemplate) -> re.Pattern[str]:
    return re.compile(rf"(?m)^[ \t\u3000]{{0,8}}(?:{'|'.join(map(re.escape, headings(template)))})")
