"""People's choices of the same pair, from a filled-in sheet of `python -m eval rate`. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.judge.results import Choice
from eval.rate import KEY, read_key, read_ratings
from sft.system.errors import UserError

_OTHER: Mapping[str, Choice] = {"first": "second", "second": "first", "tie": "tie"}
_SAME: Mapping[str, Choice] = {"first": "first", "second": "second", "tie": "tie"}


def choices_in(sheet: Path, key: Path | None, pair: Sequence[Sequence[str]]) -> dict[str, Choice]:
    """Whom people preferred, by the row's index; rows that nobody rated are left out.

    `pair` holds the names that the first and the second system go by, any of which the sheet's key may have; in the key
    they may stand the other way round. Raises UserError as `read_ratings`, and where the sheet is of other systems.
    """
    known = read_key(key or sheet.with_name(KEY))
    first, second = pair
    if known.first in first and known.second in second:
        choices = _SAME
    elif known.first in second and known.second in first:
        choices = _OTHER
    else:
        named = " and ".join(names[-1] for names in pair)
        raise UserError(
            f"{sheet}: compares {known.first} and {known.second}, and the judge {named}; give the judge the same two: "
            "python -m eval judge A B"
        )
    ratings = read_ratings(sheet, known)
    rated = zip(known.rows.values(), ratings, strict=True)
    found = {row["index"]: choices[one.preferred] for row, one in rated if one.preferred}
    if not found:
        raise UserError(f"{sheet}: no row is rated yet; write 1, 2 or tie into its column preference")
    return found
