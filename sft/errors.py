"""Errors a user can cause: one clear line with the remedy, exit status 2, no traceback."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can put right; the message says what is wrong and what to do."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` into one line on standard error and exit status 2; bugs keep their traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
