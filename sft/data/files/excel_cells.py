"""A cell of an Excel workbook as text, near to what Excel shows."""

import datetime
import re
from typing import Any

from sft.data.files.raw import UNCALCULATED, Shown

_CURRENCY = re.compile(r"\[\$([^\]-]*)(?:-[^\]]*)?\]")
_QUOTED = re.compile(r'"[^"]*"|\\.')
_ROOM = re.compile(rf"({_QUOTED.pattern})|[_*].")
"""What a format leaves free, as wide as a character or as the cell; quoted signs are no part of it."""
_PIECE = re.compile(rf"{_QUOTED.pattern}|[#0?.,]*[#0?.]|[-+¥￥$€£() ]")
"""Of a format that only writes something before, inside or behind the number; a comma behind it divides by 1,000."""
_CODE = re.compile("00+")
"""The places of a number that is a code, such as 0000 or 000-0000: zeros in front belong to it."""


def cell_text(cell: Any, formula: Any = None) -> str:
    """The text of a cell of openpyxl; `formula` is the same cell with its formula, if the sheet has any."""
    value, form = cell.value, str(cell.number_format)
    if value is None:
        uncalculated = formula is not None and formula.data_type == "f"
        return Shown(str(formula.value), UNCALCULATED) if uncalculated else ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return Shown(str(value).upper(), "a truth value")
    if isinstance(value, datetime.datetime):
        text = value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
        return Shown(text, "a date")
    if isinstance(value, datetime.date):
        return Shown(value.isoformat(), "a date")
    if isinstance(value, datetime.timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return Shown(f"{minutes // 60}:{minutes % 60:02}" + f":{seconds:02}" * bool(seconds), "a time")
    if isinstance(value, datetime.time):
        return Shown(str(value).removesuffix(":00"), "a time")
    if "%" in _QUOTED.sub("", form):
        return Shown(f"{value * 100:.15g}%", "a percentage")
    return _number(value, form)


def _number(value: int | float, form: str) -> str:
    """A number with the signs that its format writes beside it; without them where the format does more."""
    number = str(value) if isinstance(value, int) else f"{value:.15g}"
    section = form.split(";")[0] if value >= 0 else form
    section = _ROOM.sub(r"\1", _CURRENCY.sub(r'"\1"', section))
    pieces = _PIECE.findall(section)
    places = [piece for piece in pieces if piece[0] in "#0?.,"]
    is_code = number.isdigit() and _CODE.fullmatch("".join(places))
    if "".join(pieces) != section or not (is_code or len(places) == 1):
        return number
    parts = iter(_divided(number, places) if is_code else [number])
    return "".join(next(parts) if piece in places else _unquoted(piece) for piece in pieces)


def _divided(number: str, places: list[str]) -> list[str]:
    """The digits of a code in each of its format's places; further ones stand in the first."""
    digits, parts = number.zfill(sum(map(len, places))), []
    for piece in reversed(places[1:]):
        parts.append(digits[-len(piece) :])
        digits = digits[: -len(piece)]
    return [digits, *reversed(parts)]


def _unquoted(piece: str) -> str:
    return piece[1:] if piece[0] == "\\" else piece.strip('"')
