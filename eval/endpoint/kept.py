"""Replies of a server, kept as they come: a line of a file each, so that no call is paid for twice. No torch here."""

import dataclasses
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from eval.border import from_json
from eval.endpoint.reply import Reply
from sft.system.errors import UserError, not_written, warn
from sft.system.files import parse_json, read_bytes, take_lock


class Kept:
    """The replies in a file, by the hash of what was asked. The file only grows, and is ours until it is closed.

    Lines that an interruption cut are left out, and a warning says so. Raises UserError where another process writes
    to the file, and where nothing can be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise not_written(path, error) from None
        if not take_lock(self._file, path):
            raise UserError(f"{path}: is being written by another process; wait for it, or use --output")
        content = read_bytes(path)
        self.replies: dict[str, Reply] = {}
        damaged = 0
        for line in filter(None, content.split(b"\n")):
            try:
                found = parse_json(line.decode())
                self.replies[found["key"]] = from_json(found["reply"], Reply)
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged += 1
        if damaged:
            lines = "a line was" if damaged == 1 else f"{damaged} lines were"
            warn([f"{path}: {lines} cut off by an interruption and left out; what it held is asked again"])
        if content and not content.endswith(b"\n"):
            self._file.write("\n")  # so that it does not swallow the next one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply, on the disk."""
        self._file.write(json.dumps({"key": key, "reply": dataclasses.asdict(reply)}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.replies[key] = reply
