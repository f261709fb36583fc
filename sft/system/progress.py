"""Work that goes on where it was interrupted: what is finished is a line in a file beside the result."""

import fcntl
import glob
import json
from pathlib import Path
from typing import Any

from sft.system.errors import UserError


class Progress:
    """Finished jobs of a long work, kept beside `path`, its result, in one file a process.

    Those of another work (other model, adapter, rows, settings) are told by `identity` and thrown away. Raises
    UserError where somebody else works on the same result.
    """

    def __init__(self, path: Path, identity: str, process: int) -> None:
        self.pattern = f".{glob.escape(path.name)}.unfinished-*"
        self.directory = path.parent
        self.identity = identity
        self.file = path.with_name(f".{path.name}.unfinished-{process}")
        self._lock = self.file.open("a", encoding="utf-8")  # held as long as this object lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: is being written by another process; wait for it, or use --output") from None
        self.done = set(self.all_results())
        if self._results(self.file) is None:
            self.file.write_text(json.dumps(identity) + "\n", encoding="utf-8")
        else:  # a line that was cut by the interruption must not swallow the next one
            with self.file.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)

    def add(self, job: int, results: list[Any]) -> None:
        """Keep the results of a job, anything that JSON holds."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([job, results], ensure_ascii=False) + "\n")

    def all_results(self) -> dict[int, list[Any]]:
        """Results by job number, from all processes."""
        results: dict[int, list[Any]] = {}
        for file in sorted(self.directory.glob(self.pattern)):
            results |= self._results(file) or {}
        return results

    def remove(self) -> None:
        """Forget it all: the result is written."""
        for file in self.directory.glob(self.pattern):
            file.unlink()
        self._lock.close()

    def _results(self, file: Path) -> dict[int, list[Any]] | None:
        """Results in one process's file; None where they are another work's, or damaged."""
        try:
            identity, *jobs = map(json.loads, file.read_bytes().split(b"\n")[:-1])  # what follows the last was cut
            return {int(job): list(results) for job, results in jobs} if identity == self.identity else None
        except (ValueError, TypeError):
            return None
