"""Files: read as what they should be, and written whole or not at all."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from sft.system.errors import UserError, not_written

FIELD_TWICE = "a field is given twice"


def write_whole(path: Path, content: str | bytes | Iterable[str], new: bool = False) -> None:
    """Write a file so that it is there whole or, whatever happens, as it was; see `whole_file`.

    Text, in one piece or several, is written in UTF-8 with the line breaks that it has; half of a surrogate pair, which
    UTF-8 does not have, as the escape that JSON has for it (`\\ud800`).
    """
    pieces = [content] if isinstance(content, str | bytes) else content
    with whole_file(path, new) as file:
        for piece in pieces:
            file.write(piece if isinstance(piece, bytes) else piece.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def whole_file(path: Path, new: bool = False) -> Iterator[BinaryIO]:
    """A file to be written to that becomes `path`, on the disk, when the block ends, and is gone when it fails.

    What was at `path` stays as it is until then, and for good when the file has to be `new`. What killed processes left
    of the same file is removed. Raises UserError, with `path` and the reason, where the system refuses anything.
    """
    try:
        with _file_beside(path) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _place(Path(file.name), path, new)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
        sync(path.parent)
    except OSError as error:
        raise not_written(path, error) from error


def _place(written: Path, path: Path, new: bool) -> None:
    """Give a whole file its name; where it has to be new, the system refuses a name that somebody else took."""
    if not new:
        os.replace(written, path)
        return
    try:
        os.link(written, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or path.exists():
            raise UserError(f"{path}: exists already; remove it, or give another name") from None
        os.replace(written, path)  # a file system without links: the moment since the line above is not covered
    else:
        written.unlink()


def hidden_beside(path: Path, ending: str) -> Path:
    """A hidden place beside `path`; its name is not too long where that of `path` is not."""
    return path.with_name(f".{short_name(path.name)}.{ending}")


def short_name(name: str) -> str:
    """The name, or where it is longer than 200 bytes its beginning and a hash of the whole."""
    whole = os.fsencode(name)
    return name if len(whole) <= 200 else f"{whole[:180].decode(errors='ignore')}-{text_sha256([name])[:8]}"


def _file_beside(path: Path) -> BinaryIO:
    """A new file beside `path`, locked as long as it is open: one that nobody holds is what a killed process left."""
    start = hidden_beside(path, "writing-")
    for left in path.parent.glob(f"{glob.escape(start.name)}*"):
        with contextlib.suppress(OSError), left.open("rb+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    while True:
        file = start.with_name(start.name + uuid.uuid4().hex[:8]).open("xb")
        with contextlib.suppress(OSError):  # a file system without locks keeps what is left
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(file.name):  # nobody took it for left before it was locked
            return file
        file.close()


def directory_size(directory: Path) -> int:
    """Bytes of all files in a directory; 0 where there is none. What vanishes meanwhile does not count."""
    total = 0
    for path in directory.rglob("*") if directory.is_dir() else ():
        with contextlib.suppress(OSError):
            total += path.lstat().st_size * (not path.is_dir())
    return total


def sync(path: Path) -> None:
    """Put on the disk what was written to a file, or which names a directory holds, where its file system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not path.is_dir():
            raise


def take_lock(file: IO | int, path: Path, shared: bool = False) -> bool:
    """Lock an open file, which stands for `path`, for this process until it is closed; False: another one has it.

    `shared`: together with others that want it so.

    Raises UserError where the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be locked: {error.strerror}; choose a place on a local disk") from None
    return True


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Let no other process work in a directory of results while the block runs. Raises UserError where one does."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        if not take_lock(handle, directory):
            raise UserError(f"{directory}: is being written by another process; wait for it, or use --output")
        yield
    finally:
        os.close(handle)


def check_not_learned(path: Path) -> None:
    """Raise UserError where writing to `path` would change what a run has learned, its checkpoints or an export."""
    for place in (path.absolute(), *path.absolute().parents):
        if os.path.isfile(place / "export.json"):  # False, too, of a name that is too long
            raise UserError(f"{path}: is inside the export {place}, which the next one replaces; choose another place")
        if place.name in ("adapter", "model", "checkpoints") and (place.parent / "manifest.json").is_file():
            raise UserError(f"{path}: is inside what the run {place.parent} learned; choose another place")


def output_directory(path: Path) -> Path:
    """`path`, which is now a directory that can be written to. Raises UserError when it cannot be one."""
    check_not_learned(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # before the work and not after it
            return path
    except OSError as error:
        raise UserError(
            f"{path}: not a directory that can be written to: {error.strerror}; choose another, with --output where "
            "there is one"
        ) from None


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
    inside = os.path.realpath(directory)
    for parent, names, files in os.walk(directory):
        for path in (Path(parent, name) for name in (*names, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                raise UserError(f"{path}: is a link out of {directory}, which is not followed; copy the file there")


def text_sha256(pieces: Iterable[str]) -> str:
    """SHA-256 of a text, given piece by piece, as `write_whole` writes it."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
