"""Somebody else's text made safe to show: read as it is, and obeyed by no terminal and no renderer of Markdown."""

import os
import re

from rich.cells import cell_len, set_cell_size

# Direction marks reorder the text around them, so that a reader sees something that is not there; the last two are
# no characters, and not allowed in XML.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_TOKEN = re.compile(
    r"((?:hf|api_org)_|(?<![A-Za-z0-9])(?:sk-|AKIA|gh[opsur]_|github_pat_|glpat-|xox[abprs]-|AIza|eyJ[\w-]{8,}\.eyJ))"
    r"[\w.\-]{16,}",
    re.ASCII,
)
_LOGIN_IN_URL = re.compile(r"(?<=://)[^\s/@]+@")
_SIGNED_URL = re.compile(
    r"([?&](?:x-amz-\w+|x-goog-\w+|signature|sig|\w*token|\w*key|password|secret)=)[^&\s]+", re.IGNORECASE | re.ASCII
)
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LINE_LIMIT = 2000
NAME_CELLS = 12


def visible(text: str) -> str:
    """Line breaks and tabs stay; other control characters, surrogates, direction marks and U+FFFE/F become `�`."""
    lines = re.sub("\r\n?|[\v\f\x85\u2028\u2029]", "\n", text)
    return _UNPRINTABLE.sub("�", lines)


def counted(number: int, noun: str) -> str:
    """A number of things, of which one is a `noun`."""
    return f"{int(number):,} {noun}{'s' * (number != 1)}"


def bytes_shown(count: float) -> str:
    """Bytes as people read them: 1.2 GB, 3.4 MB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def escaped(text: str) -> str:
    """Somebody else's text on one line of Markdown, read as text."""
    line = " ".join(visible(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", line)


def one_line(text: str) -> str:
    """A message on one line of at most `LINE_LIMIT` characters, with the hub's tokens and logins in URLs left out."""
    line = without_tokens(" ".join(visible(text).splitlines()))
    return line if len(line) <= LINE_LIMIT else f"{line[:LINE_LIMIT]}…"


def holds_token(text: str) -> bool:
    """Whether there is a token of the hub or another service, a login in a URL or a signed URL in the text."""
    return without_tokens(text) != text


def without_tokens(text: str) -> str:
    """The text with tokens (the hub's own, and others by their form), logins in URLs and signatures left out."""
    for name in _TOKEN_VARIABLES:
        if len(own := os.environ.get(name, "").strip()) >= 8:
            text = text.replace(own, "…")
    return _SIGNED_URL.sub(r"\1…", _LOGIN_IN_URL.sub("…@", _TOKEN.sub(r"\1…", text)))


def is_text(value: object) -> bool:
    """Whether `value` is text that can be written as UTF-8, without null characters."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def narrow(name: str, cells: int = NAME_CELLS) -> str:
    """A name on one line in at most so many terminal cells; a Japanese character takes two."""
    line = " ".join(visible(name).split())
    return line if cell_len(line) <= cells else set_cell_size(line, cells - 1).rstrip() + "…"
