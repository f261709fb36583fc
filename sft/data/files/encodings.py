"""Bytes of a file become text: compression and encoding are found, not asked for."""

import contextlib
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from charset_normalizer import from_bytes

from sft.system.errors import UserError

SAMPLE = 2**18
"""Bytes of lines beyond ASCII that decide the encoding."""

_JAPANESE = re.compile("[ぁ-ヿ一-鿿]")


class Encoding(NamedTuple):
    """Python's name of an encoding, and the one that people know."""

    codec: str
    name: str

    @property
    def is_wide(self) -> bool:
        """Whether each character takes two bytes or four, ends of lines among them."""
        return self.name in ("UTF-16", "UTF-32")

    def not_text(self, line: bytes) -> str:
        """Why a line that is no text in this encoding is not: with the other one that it seems to be in."""
        japanese = _JAPANESE.search(line.decode(self.codec, "ignore"))
        mixed = self == UTF8 and not japanese and _reads(line, CP932.codec)
        return f"not {self.name} but {CP932.name}" if mixed else f"not {self.name}"


UTF8 = Encoding("utf-8", "UTF-8")
CP932 = Encoding("cp932", "cp932")
EUC_JP = Encoding("euc_jp", "EUC-JP")
ASKED = (UTF8, CP932, EUC_JP)
UTF16 = Encoding("utf-16", "UTF-16")
UTF32 = Encoding("utf-32", "UTF-32")
ISO_2022_JP = Encoding("iso2022_jp_ext", "ISO-2022-JP")
CHINESE = "gb18030"
_TO_JIS = (b"\x1b$B", b"\x1b$@")
"""What stands in front of kanji in ISO-2022-JP, whose bytes are all ASCII's."""
HEAD = 4096
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How the containers begin in which old Excel files, and new ones with a password, lie."""


def is_packed(path: Path) -> bool:
    """Whether gzip packed a file, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where gzip packed them. Raises what gzip raises of damaged files."""
    with gzip.GzipFile(path, "rb") if is_packed(path) else path.open("rb") as file:
        yield cast(BinaryIO, file)


def encoding_of(path: Path) -> Encoding:
    """The encoding in which most lines of a file are text; UTF-8 where none is right.

    Raises UserError for Chinese, which would be read as other kanji.
    """
    with opened(path) as file:
        head = file.read(HEAD)
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) and _reads(head[: len(head) // 4 * 4], UTF32.codec):
        return UTF32
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return UTF16
    if unmarked := _unmarked_utf16(head):
        return unmarked
    lines = _sample(path)
    if lines and all(map(bytes.isascii, lines)):
        return ISO_2022_JP
    sizes = {encoding: sum(len(line) for line in lines if _reads(line, encoding.codec)) for encoding in ASKED}
    if sizes[UTF8] * 2 >= sum(map(len, lines)):
        return UTF8
    best = from_bytes(b"".join(lines), cp_isolation=[CP932.codec, EUC_JP.codec, CHINESE]).best()
    if best is not None and best.encoding == CHINESE:
        raise UserError(f"{path}: is Chinese in {CHINESE.upper()}, as it seems; save it as UTF-8")
    if best is not None:
        return EUC_JP if best.encoding == EUC_JP.codec else CP932
    # A few bytes that are wrong in every encoding: the one in which most lines are text.
    return max(ASKED, key=lambda encoding: sizes[encoding])


def _unmarked_utf16(head: bytes) -> Encoding | None:
    """UTF-16 without its mark, told by its line ends: each has a zero byte, and others stand on its side alone."""
    lines = list(filter(None, head.split(b"\n")))
    if sum(0 in line for line in lines) * 2 <= len(lines):  # single lines that are damaged
        return None
    few = head.count(0) * 3 < len(head)
    if few and _reads(head[: head.rfind(b"\n") + 1] or head, UTF8.codec):  # UTF-8 with a null character somewhere
        return None
    for codec, line_end, zeros_elsewhere in (
        ("utf-16-le", b"\n\0", head[0::2].count(0)),
        ("utf-16-be", b"\0\n", head[1::2].count(0)),
    ):
        if not zeros_elsewhere and any(head[place : place + 2] == line_end for place in range(0, len(head), 2)):
            return Encoding(codec, UTF16.name)
    return None


def _sample(path: Path) -> list[bytes]:
    """The first lines with characters beyond ASCII."""
    lines, size = [], 0
    with opened(path) as file:
        for line in file:
            if not line.isascii() or any(escape in line for escape in _TO_JIS):
                lines.append(line)
                size += len(line)
                if size >= SAMPLE:
                    break
    return lines


def _reads(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


@contextlib.contextmanager
def text_lines(path: Path, encoding: Encoding, newline: str) -> Iterator[Iterator[str]]:
    """The lines of a file, without the byte order marks that stand in front of some.

    Bytes that are no text in the encoding become lone surrogates (of wide ones: U+FFFD). `newline` is that of `open`.
    Raises UserError where the text behind them cannot be told, either.
    """
    errors = "replace" if encoding.is_wide else "surrogateescape"
    with opened(path) as file, io.TextIOWrapper(file, encoding.codec, errors, newline) as text:
        try:
            yield (line.removeprefix("\ufeff") for line in text)
        except UnicodeDecodeError:  # ISO-2022-JP tells by what stood before what bytes mean
            raise UserError(f"{path}: not {encoding.name} to its end; save it as UTF-8") from None
