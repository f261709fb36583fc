"""How every command of this project reads its command line."""

import argparse


def command_parser(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is `description` as it is written, and that takes no option by its first letters alone."""
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
