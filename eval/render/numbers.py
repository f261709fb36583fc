"""Numbers as readers see them. No torch here."""

from eval.statistics.estimates import Interval
from sft.page.blocks import NOTHING


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """`0.394`, `+0.021` with `signed`, `12.3` from 10 upwards, `n/a` for None."""
    if value is None:
        return NOTHING
    return f"{value:{'+' if signed else ''}.{digits if abs(value) < 10 else 1}f}"


def interval(found: Interval, signed: bool = False, digits: int = 3) -> str:
    """`[0.357, 0.431]`; `[–]` for an interval that does not exist, nothing where there is no mean either."""
    if found.mean is None:
        return ""
    return f"[{', '.join(number(end, signed, digits) for end in found.ends or ()) or '–'}]"


def with_interval(found: Interval, signed: bool = False, digits: int = 3) -> str:
    """`0.394 [0.357, 0.431]`, the ends with so many digits."""
    return f"{number(found.mean, signed)} {interval(found, signed, digits)}".rstrip()


def p_value(value: float | None, is_bound: bool = False) -> str:
    """`.012`, `≤.002` where it is an upper bound, `<.001`, or `n/a`."""
    if value is None:
        return NOTHING
    return "<.001" if value < 0.001 else f"{'≤' * is_bound}{f'{value:.3f}'.removeprefix('0')}"


def p_is(value: float | None, is_bound: bool = False) -> str:
    """`= .012`, `≤ .002` or `< .001`, to stand behind a p."""
    shown = p_value(value, is_bound)
    return f"{shown[0]} {shown[1:]}" if shown[0] in "<≤" else f"= {shown}"


def round_up(rows: int) -> int:
    """An estimated number to two digits, upwards: 1234 is 1300."""
    step = 10 ** max(0, len(str(rows)) - 2)
    return -(-rows // step) * step
