"""What is said when something is wrong: warnings, errors that the user can put right, and how a command ends."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from sft.system.visible import one_line


def warn(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, a line each."""
    for warning in warnings:
        print(one_line(f"warning: {warning}"), file=sys.stderr, flush=True)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, to standard output if not to `file`; names in it, which may hold anything, are made visible."""
    print(one_line(text), file=file, flush=True)


class UserError(Exception):
    """Something the user can put right; the message says what is wrong and what to do.

    It is one line, whatever it quotes: control characters are made visible, and the hub's tokens left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def first_line(error: Exception) -> str:
    """What the first line of an error says, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = {os.strerror(number) for number in (*_FULL, errno.EROFS, errno.EIO)}
_TORCH = ("PytorchStreamWriter", "iostream error", "file write failed")
"""What PyTorch's writer says when a disk is full; the reason itself is lost on the way."""


def not_written(path: Path, error: OSError) -> UserError:
    """That `path` cannot be written, why, and what to do."""
    remedy = "make room, or choose another place" if error.errno in _FULL else "choose another place"
    return UserError(f"{path}: cannot be written: {error.strerror or error}; {remedy}")


def disk_problem(error: BaseException | None) -> str | None:
    """Why a disk cannot be written to, if that is what the error is about; None for any other error.

    The libraries say it in many types: OSError, RuntimeError, safetensors' own.
    """
    while error is not None:
        for reason in _DISK if not isinstance(error, UserError) else ():
            if reason in str(error):
                return reason
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__
    return None


@contextlib.contextmanager
def exit_on_user_error(when_interrupted: str = "interrupted") -> Iterator[None]:
    """Turn a `UserError` into one line on standard error and exit status 2; bugs keep their traceback.

    So is a disk that is full or cannot be written to, and a name that is too long. Ctrl-C exits with 130 and the line
    `when_interrupted`, a closed pipe (`… | head`) quietly with 141, as shells do. Characters that the terminal's
    encoding does not have are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{when_interrupted}", file=sys.stderr, flush=True)
        sys.exit(130)
    except BrokenPipeError:
        # What Python flushes at exit must not meet the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            say(f"error: {str(error.filename)[:100]}…: the name is too long", sys.stderr)
            sys.exit(2)
        reason = disk_problem(error)
        if reason is None:
            raise
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        say(f"error: {where}cannot be written: {reason}; make room, or choose another place", sys.stderr)
        sys.exit(2)
