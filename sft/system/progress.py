"""Work that goes on where it was interrupted: what is finished is a line in a file beside the result."""

import contextlib
import glob
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from sft.system.errors import UserError, not_written, warn
from sft.system.files import hidden_beside, take_lock, write_whole


class Finished(NamedTuple):
    """A line: the identity of a work, the number of one of its jobs, and the job's results."""

    work: str
    job: int
    results: list[Any]

    def line(self) -> str:
        """The line as it is written."""
        return json.dumps(self) + "\n"


_FINISHED = TypeAdapter(Finished)


class Progress:
    """Finished jobs of a long work, kept beside `path`, its result, in one file a process.

    A work is told from others (other model, adapter, rows, settings) by its `identity`. Theirs are kept for them, and
    damaged lines are left out; a warning says so. Raises UserError where somebody else works on the same result, and
    where nothing could be written there.
    """

    done: set[int]
    """Numbers of the jobs that are finished."""
    identity: str
    """Of the work, once it has begun."""

    def __init__(self, path: Path, process: int) -> None:
        self.path = path
        self.identity = ""
        self._name = hidden_beside(path, f"unfinished-{process}")
        try:
            with contextlib.suppress(FileNotFoundError):
                path.stat()  # a name that is too long, for one, is an error now and not when all is done
            self._file = self._name.open("a", encoding="utf-8")  # locked as long as this object lives
        except OSError as error:
            raise not_written(path, error) from None
        if path.is_dir():
            raise UserError(f"{path}: is a directory; move it away, or use --output")
        if not take_lock(self._file, path):
            raise UserError(f"{path}: is being written by another process; wait for it, or use --output")

    def begin(self, identity: str) -> None:
        """Find what is finished of this work."""
        self.identity = identity
        lines, damaged = _read(self._name)
        others = sum(line.work != identity for line in lines)
        self._file.write("\n")  # the last line may have been cut, and must not swallow the next one
        if damaged:
            warn([f"{self._name}: {damaged} of its lines damaged by an interruption; their work is done again"])
        if others:
            warn([f"{self._name}: {others} jobs finished under other settings stay there; delete it to forget them"])
        self.done = set(self.all_results())

    def add(self, job: int, results: list[Any]) -> None:
        """Keep the results of a job, anything that JSON holds."""
        self._file.write(Finished(self.identity, job, results).line())
        self._file.flush()
        os.fsync(self._file.fileno())

    def all_results(self) -> dict[int, list[Any]]:
        """Results by job number, from all processes. Raises UserError when our file is not there any more."""
        if not self._name.exists() or not os.path.samestat(os.fstat(self._file.fileno()), self._name.stat()):
            raise UserError(f"{self.path}: somebody removed what was finished of it; start again")
        lines = [line for file in _files(self.path) for line in _read(file)[0]]
        return {line.job: line.results for line in lines if line.work == self.identity}

    def remove(self) -> None:
        """Forget it all, other works' aside: the result is written."""
        for file in _files(self.path):
            others = [line.line() for line in _read(file)[0] if line.work != self.identity]
            write_whole(file, others) if others else file.unlink()
        self._file.close()

    def release(self) -> None:
        """Let others have the name, where nothing was finished."""
        if not self._file.closed and not os.fstat(self._file.fileno()).st_size:
            self._name.unlink(missing_ok=True)
        self._file.close()


def forget(path: Path, identity: str | None) -> None:
    """Forget a work whose result is at `path`: a kill came between writing it and `Progress.remove`."""
    if identity and _files(path):
        progress = Progress(path, 0)
        progress.identity = identity
        progress.remove()


def _files(path: Path) -> list[Path]:
    pattern = glob.escape(hidden_beside(path, "unfinished-").name) + "*"
    return sorted(path.parent.glob(pattern))


def _read(file: Path) -> tuple[list[Finished], int]:
    """A file's whole lines, and the number of its damaged ones."""
    found, damaged = [], 0
    for line in filter(None, file.read_bytes().split(b"\n")):
        try:
            found.append(_FINISHED.validate_json(line))
        except ValueError:
            damaged += 1
    return found, damaged
