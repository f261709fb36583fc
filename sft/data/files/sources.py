"""Where rows come from: what `data.path` names becomes files and hub data sets."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sft.system.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
"""Of files with rows, in any case, and each may be followed by .gz."""
LOCK = "~$"
"""How the name begins of what Excel keeps beside a workbook that is open."""
KINDS = f"{', '.join(SUFFIXES)} file (or .gz of one)"


Held = Literal["validation", "test"]
"""The sides of a split that may have files of their own."""


class Source(NamedTuple):
    """A file, a directory or glob of files, or a hub data set.

    `weight` says how often an epoch shows its rows, `columns` which column holds which field (None: by their names; a
    column that is None: the rows have no such field), `revision` pins a hub data set's commit, tag or branch. `side` is
    that of all its rows; None: they are divided.
    """

    path: str
    weight: float = 1.0
    columns: Mapping[str, str | None] | None = None
    revision: str | None = None
    side: Held | None = None


def suffix(path: Path) -> str:
    """Which kind of file a name says it is, in small letters and without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_local(path: str) -> bool:
    """Whether a path is no hub id (`name` or `owner/name`): what exists, or is spelt like files, is local."""
    return (
        Path(path).expanduser().exists()
        or suffix(Path(path)) in SUFFIXES
        or path.startswith((".", "/", "~"))
        or path.count("/") > 1
        or is_pattern(path)
    )


def is_pattern(path: str) -> bool:
    """Whether a path that does not exist is a glob."""
    return glob.has_magic(path)


def files_of(sources: Sequence[Source]) -> list[Source]:
    """The sources with directories and globs replaced by their files, in order of their names.

    Raises UserError for what is not there, is no file of rows, or is named twice.
    """
    found: list[Source] = []
    for source in sources:
        paths = _files(source.path) if is_local(source.path) else [source.path]
        found += [source._replace(path=path) for path in paths]
    seen: dict[str, str] = {}
    for path, _, _, revision, _ in found:
        place = str(Path(path).resolve()) if is_local(path) else f"{path}@{revision}"
        if place in seen:
            raise UserError(f"{path}: is named twice in section data; weight: 2 shows its rows twice")
        seen[place] = path
    return found


def _files(path: str) -> list[str]:
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            inside = [str(file) for file in sorted(place.iterdir()) if not file.name.startswith(".")]
            return _of_rows(path, inside, "directory")
        if not place.exists() and is_pattern(path):
            return _of_rows(path, sorted(glob.glob(str(place), recursive=True)), "pattern")
        if not place.exists():
            raise UserError(f"{path}: no such data file; set data.path to a hub id or a {KINDS}")
    except OSError as error:  # a link to itself, a directory that may not be read
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not place.is_file() or suffix(place) not in SUFFIXES:
        old = "; save it as .xlsx" if suffix(place) in (".xls", ".xlsm", ".xlsb", ".ods") else ""
        raise UserError(f"{path}: not a data file; data.path takes a hub id or a {KINDS}{old}")
    return [str(place)]


def _of_rows(path: str, names: list[str], what: str) -> list[str]:
    kept = [name for name in names if not Path(name).name.startswith(LOCK)]
    files = [name for name in kept if suffix(Path(name)) in SUFFIXES and Path(name).is_file()]
    if not files:
        raise UserError(f"{path}: this {what} has no data file; data.path takes a hub id or a {KINDS}")
    return files
