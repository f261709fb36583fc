"""A run's directory: who may write to it, what is recorded in it, and which run is the newest."""

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sft.system.errors import UserError


def text_sha256(pieces: Iterable[str]) -> str:
    """SHA-256 of a text in UTF-8, given piece by piece."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there complete or not at all."""
    write_pieces(path, [text])


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """The same for a text that comes piece by piece."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    os.replace(aside, path)


def output_directory(path: Path) -> Path:
    """`path`, which is now a directory that can be written to. Raises UserError when it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # before the work and not after it
            return path
    except OSError as error:
        raise UserError(
            f"{path}: not a directory that can be written to: {error.strerror}; choose another, with --output where "
            "there is one"
        ) from None


FIELD_TWICE = "a field is given twice"


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises UserError for what is none: a directory, a pipe that might never end, nothing."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is not a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The value in a JSON file in UTF-8. Raises UserError when there is none."""
    try:
        return parse_json(read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def parse_json(text: str) -> Any:
    """The value that `text` is. Raises ValueError for an object that has a field twice, too, and RecursionError."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(FIELD_TWICE)
    return fields


def check_inside(directory: Path) -> None:
    """Raise UserError when a link in `directory` leads out of it: reading or writing there would reach other files."""
    inside = directory.resolve()
    for parent, names, files in os.walk(directory):
        for path in (Path(parent, name) for name in (*names, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UserError(f"{path}: is a link out of {directory}, which is not followed; copy the file there")
