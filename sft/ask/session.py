"""A session: questions from the terminal or a pipe, one after another, each standing alone."""

import contextlib
import sys

from sft.ask.question import ask
from sft.generation.answerer import Answerer
from sft.system.errors import UserError
from sft.system.visible import is_text


def converse(answerer: Answerer) -> None:
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
