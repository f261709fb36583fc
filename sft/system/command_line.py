"""How every command of this project reads its command line."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import NoReturn

from sft import __version__
from sft.system.visible import one_line

CHECKOUT = Path(__file__).parents[2] / "pyproject.toml"
"""Beside the program in a checkout alone."""
_INSTALLED = {
    "accelerate launch train_sft.py": "accelerate launch -m train_sft",
    "python train_sft.py": "calm-train",
    "python infer.py": "calm-infer",
    "python -m eval": "calm-eval",
}

Setting = Callable[[str, str], str]
"""How a setting is written that somebody gave as an option: from the option's name and value to a hint."""


class CommandParser(argparse.ArgumentParser):
    """A parser that says what was probably meant by a wrong word. It shows what was typed, and obeys nothing in it."""

    setting: Setting | None = None
    """Asked about options that there are not; None for commands that take no settings."""
    _given: Sequence[str] = ()

    def read(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """What `words` say (None: the command line's), in any order. Exits with 2 and an error where one is wrong."""
        self._given = sys.argv[1:] if words is None else words
        before = list(takewhile(lambda word: word != "--", self._given))
        for word, following in pairwise([*before, ""]):
            name, _, value = word.partition("=")
            if re.fullmatch(r"--?[^\W\d][\w.-]*", name) and name not in self._option_string_actions:
                self.error(f"{name}: no such option{self._meant(name, value or following)}")
        return self.parse_intermixed_args(self._given)

    def _meant(self, name: str, value: str) -> str:
        options = [option for option in self._option_string_actions if option.startswith("--")]
        if near := difflib.get_close_matches(name, options, n=1, cutoff=0.75):
            return f"; did you mean {near[0]}?"
        return f"; {self.setting(name.lstrip('-'), value)}" if self.setting else ""

    def error(self, message: str) -> NoReturn:
        """Print the error, below the help where nothing was typed at all, and exit with 2."""
        if not self._given:
            self.print_help(sys.stderr)
        print(f"error: {one_line(message)}", file=sys.stderr)
        if self._given:
            print(f"{self.prog} --help shows how it is used", file=sys.stderr)
        sys.exit(2)


def as_typed(words: str) -> str:
    """Commands as this user types them: the installed package has other ones than a checkout."""
    if CHECKOUT.is_file() and not Path(sys.argv[0]).name.startswith("calm-"):
        return words
    for in_a_checkout, installed in _INSTALLED.items():
        words = words.replace(in_a_checkout, installed)
    return words


def command_parser(description: str | None, prog: str | None = None, setting: Setting | None = None) -> CommandParser:
    """A parser whose help is `description` as it is written, and that takes no option by its first letters alone."""
    parser = CommandParser(
        prog=prog and as_typed(prog),
        description=description and as_typed(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.setting = setting
    parser.add_argument("--version", action="version", version=f"calm-sft {__version__}")
    return parser
