"""Texts that hold a rendered prompt: alpaca's templates, Japanese and English, taken apart again."""

import re
from typing import NamedTuple

from sft.data.files.raw import BadRow

_PARTS = {"指示": "instruction", "入力": "input", "応答": "output"}
_PARTS |= {"Instruction": "instruction", "Input": "input", "Response": "output"}
_MARK = re.compile(rf"^### ?({'|'.join(_PARTS)}) ?[:：][ \t]*\r?\n?", re.MULTILINE)
_PREAMBLE = re.compile(
    r"(?:Below is an instruction that describes a task|以下は、?タスクを説明する指示)[^.。\n]*[.。]?"
    r"(?:[ \t]*\r?\n?(?:Write a response|要求を)[^.。\n]*[.。]?)?"
)
"""Alpaca's own words in front of the first marker, as its many versions have them: one sentence or two."""
_ENDS = ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")
"""End-of-text tokens that are written out at the end of texts; training puts the tokenizer's own there."""


class Parts(NamedTuple):
    """What a rendered prompt was made of; `system` is the text in front where that is not alpaca's own."""

    system: str
    instruction: str
    input: str
    output: str


def holds_prompt(text: object) -> bool:
    """Whether a text begins like one of alpaca's templates: its first marker is that of the instruction."""
    found = _MARK.search(text) if isinstance(text, str) else None
    return found is not None and _PARTS[found[1]] == "instruction"


def taken_apart(text: str) -> Parts:
    """The parts of a rendered prompt, its answer too where it has one. Raises BadRow where they cannot be told."""
    marks = list(_MARK.finditer(text))
    order = [_PARTS[mark[1]] for mark in marks]
    if order not in (["instruction", "output"], ["instruction", "input", "output"]):
        seen = ", ".join(mark[0].strip() for mark in marks[:4]) or "none"
        raise BadRow(f"its template's markers are not those of one question and answer ({seen})")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = {name: text[mark.end() : end] for name, mark, end in zip(order, marks, ends, strict=True)}
    for name in order[:-1]:
        parts[name] = parts[name].rstrip("\r\n")
    front = text[: marks[0].start()].strip().removeprefix("<s>")
    system = _PREAMBLE.sub("", front, count=1).strip()
    return Parts(system, parts["instruction"], parts.get("input", ""), _without_ends(parts["output"]))


def _without_ends(text: str) -> str:
    while end := next((end for end in _ENDS if text.rstrip().endswith(end)), None):
        text = text.rstrip().removesuffix(end)
    return text
