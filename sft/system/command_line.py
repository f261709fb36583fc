"""How every command of this project reads its command line."""

import argparse
from typing import NoReturn

from sft.system.visible import one_line


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors show what was typed, and obey nothing in it."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        super().error(one_line(message))


def command_parser(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is `description` as it is written, and that takes no option by its first letters alone."""
    return CommandParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
