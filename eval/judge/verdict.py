"""What a judge's reply says: the verdict in its last line and in no other, or why there is none. No torch here."""

import re
import unicodedata
from typing import Literal, NamedTuple, get_args

from eval.endpoint.reply import Reply
from eval.endpoint.server import Failure

Asked = Literal["score", "pair"]
Outcome = Literal["given", "unparsable", "refused", "cut", "empty", "failed"]
"""What became of a call: there is a verdict; no line that is one; the judge declined; its reply was cut at the limit,
is empty, or never came."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

A, B, TIE = "A", "B", "tie"
_FORMS = {
    "score": re.compile(r"評価[:はが=]*([1-5])(?:点|/5|/5点)?"),
    "pair": re.compile(r"判定[:はが=]*(?:回答)?(A|B|引き分け|引分け|引分|同等|同点)"),
}
_REFUSAL = re.compile(
    r"(?:評価|採点|判定|判断|比較|回答|答え|対応)(?:は|を|することは|することが|が)?(?:いたし|し)?でき(?:ません|ない|かね)|申し訳"
    r"|I(?:'m| am) (?:sorry|unable)|I can(?:not|'t)",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[\s*_#`>~【】\[\]「」『』()。.]+")


class Verdict(NamedTuple):
    """What became of a call: `value` is "1" to "5" or A, B and tie; None where there is no verdict."""

    outcome: Outcome
    value: str | None
    text: str
    """The judge's own words, or why there are none."""


def verdict_of(asked: Asked, reply: Reply | Failure) -> Verdict:
    """The verdict of one call. The last line alone counts: what stands before may be quoted from the answer."""
    if isinstance(reply, Failure):
        return Verdict("failed", None, reply.reason)
    text = reply.text.strip()
    value = None if reply.refused or reply.finish == "length" else verdict_in(asked, text)
    if value is not None:
        return Verdict("given", value, reply.text)
    if reply.finish == "length":
        return Verdict("cut", None, reply.text)
    if reply.refused or _REFUSAL.search(text):
        return Verdict("refused", None, reply.text)
    return Verdict("unparsable" if text else "empty", None, reply.text)


def verdict_in(asked: Asked, text: str) -> str | None:
    """The verdict that a text's last line is; None where it is none, or says more than that."""
    lines = text.strip().splitlines()
    plain = _MARKS.sub("", unicodedata.normalize("NFKC", lines[-1])) if lines else ""
    found = _FORMS[asked].fullmatch(plain)
    if not found:
        return None
    return found[1] if found[1] in ("A", "B") or found[1].isdigit() else TIE


def holds_verdict(answer: str) -> bool:
    """Whether an answer holds a line in the form of a verdict, as one that would be its own judge."""
    return any(verdict_in(asked, line) for line in answer.splitlines() for asked in get_args(Asked))
