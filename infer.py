"""Ask a finished run.

python infer.py                                             an interactive session with the newest finished run
python infer.py runs/calm7b --instruction … [--input …]     one question, with or without a context
python infer.py runs/calm7b --jsonl questions.jsonl --output answers.jsonl
python infer.py runs/calm7b generation.temperature=0        any setting changed; --base answers without adapter
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error
from sft.system.files import parse_json, read_bytes

if TYPE_CHECKING:
    from sft.generation.answerer import Answerer


def main() -> None:
    """Read the command line, load the run, and answer in one of three ways."""
    parser = command_parser(__doc__)
    parser.add_argument("run", nargs="?", help="a run directory; without it, the run that finished last")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the run's settings")
    parser.add_argument("--instruction", help="one question or task")
    parser.add_argument("--input", default="", help="its context")
    parser.add_argument("--jsonl", type=Path, help="rows with instruction and, where there is one, input")
    parser.add_argument("--output", type=Path, help="where --jsonl writes the rows with their answers")
    parser.add_argument("--base", action="store_true", help="answer with the base model alone")
    parser.add_argument("--allow-other-template", action="store_true", help="allow a prompt.template not trained with")
    arguments = parser.parse_intermixed_args()
    if arguments.run and "=" in arguments.run and not Path(arguments.run).exists():
        arguments.overrides.insert(0, arguments.run)
        arguments.run = None
    with exit_on_user_error():
        check_arguments(arguments)
        questions = read_questions(arguments.jsonl) if arguments.jsonl else []
        answerer = load(arguments)
        system = "base" if arguments.base else "tuned"
        with answerer.as_system(system):
            if arguments.jsonl:
                answer_file(answerer, questions, arguments.output, system)
            elif arguments.instruction:
                ask(answerer, arguments.instruction, arguments.input, set())
            else:
                converse(answerer)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together."""
    if bool(arguments.jsonl) != bool(arguments.output):
        raise UserError("--jsonl and --output go together: questions in, answers out")
    if arguments.jsonl and arguments.instruction:
        raise UserError("--jsonl brings its own questions; leave --instruction out")
    if arguments.input and not arguments.instruction:
        raise UserError("--input is the context of a question: give --instruction too")
    if arguments.instruction is not None and not arguments.instruction.strip():
        raise UserError("--instruction is empty")
    for text in (arguments.instruction or "", arguments.input):
        if not is_text(text):
            raise UserError("--instruction and --input must be text in the terminal's encoding")
    output = arguments.output
    if output and output.exists():
        raise UserError(f"{output}: exists already; remove it, or give another --output")
    if output and not output.parent.is_dir():
        raise UserError(f"{output}: answers cannot be written there; give a file in a directory that exists")


def is_text(value: object) -> bool:
    """Whether `value` is text that can be written as UTF-8, without null characters."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def load(arguments: argparse.Namespace) -> "Answerer":
    """Load the run and say which one it is and how it will answer."""
    from sft.run.directory import newest_finished_run, require_finished

    run = Path(arguments.run) if arguments.run else newest_finished_run()
    require_finished(run)

    from sft.generation.answerer import load_answerer
    from sft.generation.settings import effective_settings
    from sft.system.visible import one_line

    answerer = load_answerer(run, arguments.overrides, arguments.allow_other_template)
    settings = ", ".join(f"{key} {value}" for key, value in effective_settings(answerer.generation).items())
    print(one_line(f"{run}{' (base model alone)' if arguments.base else ''}: {settings}"), file=sys.stderr)
    return answerer


def ask(answerer: "Answerer", instruction: str, context: str, warned: set[str]) -> None:
    """Stream the answer to one question to standard output, after warnings that are not among those `warned` of."""
    from sft.generation.settings import generation_hazards
    from sft.generation.streamer import CharacterStreamer
    from sft.prompt.encode import eos_id
    from sft.system.errors import warn
    from sft.system.visible import visible

    prompt = answerer.prompt(instruction, context)
    warnings = generation_hazards(answerer.generation, [context], [prompt.ids], eos_id(answerer.tokenizer))
    warn(warning for warning in warnings if warning not in warned)
    warned.update(warnings)
    if prompt.context_shortened:
        print("note: the context is longer than the model's input; its end is left out", file=sys.stderr)
    streamer = CharacterStreamer(answerer.tokenizer, lambda text: print(text, end="", flush=True))
    answer = answerer.answer(prompt.ids, streamer)
    print("" if streamer.written else visible(answer.text))  # beams end before they can be streamed
    if answer.finish_reason == "length":
        limit = answerer.generation["max_new_tokens"]
        print(f"note: cut off after {limit} tokens; raise generation.max_new_tokens for more", file=sys.stderr)


def converse(answerer: "Answerer") -> None:
    """Ask and answer until the end of input; each question stands alone."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (arrow keys and history in input())
    print("an empty 指示 or Ctrl-D ends; 文脈 may be empty", file=sys.stderr)
    warned: set[str] = set()
    prompts = ("指示> ", "文脈> ") if sys.stdin.isatty() else ("", "")
    try:
        while instruction := input(prompts[0]).strip():
            try:
                context = input(prompts[1]).strip()
            except EOFError:  # the last line of a file
                context = ""
            try:
                if not (is_text(instruction) and is_text(context)):
                    raise UserError("that is not text in the terminal's encoding")
                ask(answerer, instruction, context, warned)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
            print()
    except (EOFError, KeyboardInterrupt):
        print()


def read_questions(path: Path) -> list[dict[str, object]]:
    """Rows of a jsonl file, each with a text `instruction` and at most a text `input`."""
    rows = []
    try:
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            # Every field is written again beside its answer; the lists around it are room for a deeper stack then.
            json.dumps([[[[row]]]], ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON that can be written again: {error}") from None
        if not isinstance(row, dict) or not is_text(row.get("instruction")) or not row["instruction"].strip():
            raise UserError(f"{path}:{number}: a row needs a text field instruction (and may have input)")
        if row.get("input") is not None and not is_text(row["input"]):
            raise UserError(f"{path}:{number}: input is not text")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no questions in it")
    return rows


def answer_file(answerer: "Answerer", rows: list[dict[str, object]], output: Path, system: str) -> None:
    """Answer all rows in batches and write them, in their order, with `answer` and `finish_reason` added.

    Answers that an interrupted call with the same questions, model and settings has found are not looked for again.
    """
    from tqdm import tqdm

    from sft.generation.settings import generation_hazards
    from sft.prompt.encode import eos_id
    from sft.prompt.encoded_rows import digest
    from sft.run.directory import write_text
    from sft.system.errors import warn
    from sft.system.progress import Progress

    prompts: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        try:
            prompts[position] = answerer.prompt(str(row["instruction"]), str(row.get("input") or "")).ids
        except UserError as error:
            print(f"row {position + 1}: {error}", file=sys.stderr)
            row |= {"answer": "", "finish_reason": "error"}
    model = [answerer.weights_sha256, answerer.template.sha256, answerer.config.model.model_dump_json(), system]
    settings = json.dumps([answerer.config.quantization, answerer.generation], sort_keys=True)
    progress = Progress(output, digest(*model, settings, json.dumps(rows)), 0)
    positions, ids = list(prompts), list(prompts.values())
    contexts = [str(rows[position].get("input") or "") for position in positions]
    warn(generation_hazards(answerer.generation, contexts, ids, eos_id(answerer.tokenizer)))
    left = [place for place in range(len(ids)) if place not in progress.done]
    with tqdm(total=len(ids), initial=len(progress.done), unit="answer", desc="answering") as bar:
        for _, number, answer in answerer.answer_all([ids[place] for place in left]):
            progress.add(left[number], [answer.text, answer.finish_reason])
            bar.update()
    results = progress.all_results()
    for place, position in enumerate(positions):
        text, finish_reason = results[place]
        rows[position] |= {"answer": text, "finish_reason": finish_reason}
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    progress.remove()
    print(f"{output}: {len(rows)} answers", file=sys.stderr)


if __name__ == "__main__":
    main()
