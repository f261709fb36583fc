"""Questions through a pipe: a line with the question, a line with its context, and so on to the end."""

import sys
from typing import TextIO

from sft.ask.question import ask
from sft.generation.answerer import Answerer
from sft.system.errors import UserError
from sft.system.texts import text
from sft.system.visible import counted, is_text


def answer_lines(answerer: Answerer, lines: TextIO) -> None:
    """Answer every pair of lines, each standing alone; the context's line may be empty and, of the last, missing.

    What cannot be answered is said, with its line, and the next is asked. Raises UserError at the end where there was
    any such.
    """
    print(text("ask.pairs"), file=sys.stderr)
    warned: set[str] = set()
    pairs = failed = 0
    while instruction := lines.readline():
        context = lines.readline()
        pairs += 1
        if not instruction.strip() and not context.strip():
            pairs -= 1
            continue
        try:
            if not instruction.strip():
                raise UserError("the line of the question is empty, and the one of its context is not")
            if not is_text(instruction + context):
                raise UserError("that is not text in the terminal's encoding")
            ask(answerer, instruction.strip(), context.strip(), warned)
        except UserError as error:
            failed += 1
            print(f"error: question {pairs}: {error}", file=sys.stderr)
        print(flush=True)
    if failed:
        raise UserError(f"{failed} of {counted(pairs, 'question')} got no answer")
