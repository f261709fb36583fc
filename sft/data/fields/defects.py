"""Known defects of translated rows, dolly-ja's above all: what each is, and which of them a row has."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Literal

Defect = Literal["copies", "citations", "untranslated", "truncated"]
DEFECTS: dict[Defect, str] = {
    "copies": "the output is the context or the instruction over again",
    "citations": "the output holds citation marks such as [3]",
    "untranslated": "the instruction has no Japanese, or the output is English prose",
    "truncated": "the output stops inside a sentence",
}
"""What each defect is, by the name that `data.leave_out` has for it."""

COPIED_SHARE = 0.9
"""A text that stands whole in another is a copy of it where it is at least so much of it."""
COPIED_LENGTH = 20
"""Letters; shorter answers may well be a whole short context."""

ENGLISH_WORDS = 5
"""Different function words that make a text prose, which a list of titles hardly has."""

_MARK = r"\[(?:\d{1,3}|[a-z]|note \d+|注 ?\d+|citation needed|要出典)\]"
# Behind Japanese, or before it: elsewhere, brackets are an index in a program more often than a source.
_CITATION = re.compile(
    rf"(?<=[ぁ-んァ-ヶー一-鿿。、」』）；％%]){_MARK}|(?<=[。、」』）;] ){_MARK}|(?<=[\w)]){_MARK}(?=[ぁ-ん、。）])"
)
_JAPANESE = re.compile("[ぁ-んァ-ヶ一-鿿々]")
_ENGLISH = re.compile(r"[A-Za-z']+")
_FUNCTION_WORDS = {
    "the", "of", "and", "is", "are", "was", "were", "to", "in", "a", "an", "for", "with", "on", "that", "it", "by",
    "as", "from", "this", "be", "has", "have",
}  # fmt: skip
_CODE = re.compile(r"[{};=<>]|\(\)|://")
_CUT = re.compile(r"(?:[、，,（「『]|(?<!ながら)(?<=[ぁ-ん])が|[^ぁ-ん]は|では|には|[^ぁ-ん]を|および|または|そして)$")


def defects_of(instruction: str, context: str, output: str) -> list[Defect]:
    """Which defects a row has, in the order of `DEFECTS`."""
    found: list[Defect] = []
    if is_copy(output, context) or is_copy(output, instruction):
        found.append("copies")
    if "[" in output and _CITATION.search(output):
        found.append("citations")
    if _is_english(output) or (len(_ENGLISH.findall(instruction)) >= 4 and not _JAPANESE.search(instruction)):
        found.append("untranslated")
    if _CUT.search(output.rstrip()):
        found.append("truncated")
    return found


def first_defect(row: Mapping[str, str], wanted: Collection[str]) -> Defect | None:
    """The first of the `wanted` defects that a row has."""
    found = defects_of(row["instruction"], row["input"], row["output"]) if wanted else []
    return next((defect for defect in found if defect in wanted), None)


def letters(text: str) -> str:
    """A text without case, width, white space and punctuation: what tells whether two say the same."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def is_copy(output: str, source: str) -> bool:
    """Whether an output is `source` over again, but for a few letters in front or behind."""
    lengths = len(output), len(source)
    if not source or min(lengths) < COPIED_SHARE * max(lengths) / 2:  # far apart with white space and punctuation, too
        return False
    short, long = sorted((letters(output), letters(source)), key=len)
    return len(short) >= COPIED_LENGTH and len(short) >= COPIED_SHARE * len(long) and short in long


def _is_english(text: str) -> bool:
    """Whether a text is English sentences: no list of names, no program."""
    words = _ENGLISH.findall(text)
    if len(words) < 6 or _CODE.search(text):
        return False
    japanese = sum(1 for _ in _JAPANESE.finditer(text))
    if japanese * 10 > sum(map(len, words)):
        return False
    return len(_FUNCTION_WORDS.intersection(word.lower() for word in words)) >= ENGLISH_WORDS
