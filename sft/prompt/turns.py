"""How a chat template writes conversations: what stands between their messages, read off what it makes of marks."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sft.system.errors import UserError

SYSTEM = "〔役割の場所〕"
MARKS = ["〔質問一〕", "〔応答一〕", "〔質問二〕", "〔応答二〕", "〔質問三〕"]
"""Texts that no template contains and no template trims: questions and answers in turn."""


class Turns(NamedTuple):
    """The fields of `PromptTemplate` about conversations."""

    turn: str | None = None
    turn_end: str = ""
    system: str | None = None
    trimmed: tuple[str, ...] = ()


def read_turns(rendered: Callable[..., str], around: Sequence[str], specials: Sequence[str]) -> Turns:
    """What `rendered` shows of conversations.

    It renders questions and answers in turn, with `system` and the options of `apply_chat_template`, and raises
    UserError where the template does. `around` holds what stands before and behind the question of a prompt.
    """
    start, end = around
    turn, turn_end = _turn(rendered, start, end, specials)
    system = _system(rendered, end)
    if turn and not _holds(rendered, start, end, turn, system):
        turn, turn_end = None, ""
    return Turns(turn, turn_end, system, _trimmed(rendered, system) if turn else ())


def _turn(rendered: Callable[..., str], start: str, end: str, specials: Sequence[str]) -> tuple[str | None, str]:
    """A question, its answer and what stands up to the next question, and what of that ends the answer's turn."""
    question, answer, second = MARKS[:3]
    try:
        text = rendered(question, answer, second, add_generation_prompt=True)
        last = rendered(question, answer).partition(answer)[2]
    except UserError:
        return None, ""
    inner = text.removeprefix(start).removesuffix(second + end)
    shown_once = [inner.count(mark) for mark in (question, answer, second)] == [1, 1, 0]
    if not shown_once or text != f"{start}{inner}{second}{end}":
        return None, ""
    before, _, gap = inner.partition(answer)
    if not before.startswith(question):
        return None, ""
    return as_format(inner, instruction=question, output=answer), _common_start(gap, last, specials)


def _common_start(text: str, other: str, specials: Sequence[str]) -> str:
    """What both texts begin with, without the torn beginning of a special token."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    common = "".join(character for character, _ in pairs)
    for special in specials:
        for torn in range(1, len(special)):
            if common.endswith(special[:torn]) and text.startswith(special, len(common) - torn):
                return common[:-torn]
    return common


def _system(rendered: Callable[..., str], end: str) -> str | None:
    question = MARKS[0]
    try:
        text = rendered(question, system=SYSTEM, add_generation_prompt=True)
    except UserError:
        return None
    before, _, rest = text.partition(SYSTEM)
    between = rest.removesuffix(question + end)
    if text != f"{before}{SYSTEM}{between}{question}{end}" or SYSTEM in between or question in before + between:
        return None
    return as_format(before + SYSTEM + between, system=SYSTEM)


def _holds(rendered: Callable[..., str], start: str, end: str, turn: str, system: str | None) -> bool:
    """Whether a longer conversation is what its parts say."""
    turns = [turn.format(instruction=q, output=a) for q, a in zip(MARKS[:-1:2], MARKS[1::2], strict=True)]
    begin = system.format(system=SYSTEM) if system else start
    try:
        text = rendered(*MARKS, system=SYSTEM if system else "", add_generation_prompt=True)
    except UserError:
        return False
    return text == f"{begin}{''.join(turns)}{MARKS[-1]}{end}"


def _trimmed(rendered: Callable[..., str], system: str | None) -> tuple[str, ...]:
    """The roles whose messages lose white space at both ends."""
    texts = {"system": SYSTEM if system else "", "user": MARKS[0], "assistant": MARKS[1]}

    def shown(**padded: str) -> str:
        now = texts | padded
        return rendered(now["user"], now["assistant"], MARKS[2], system=now["system"], add_generation_prompt=True)

    return tuple(role for role, text in texts.items() if text and shown(**{role: f" \n{text}\n "}) == shown())


def as_format(text: str, **fields: str) -> str:
    """The format string that gives `text` when each of its fields is filled with the text that it has here."""
    escaped = text.replace("{", "{{").replace("}", "}}")
    for field, content in fields.items():
        escaped = escaped.replace(content, f"{{{field}}}")
    return escaped
