"""Where rows come from: what `data.path` names becomes files and hub data sets."""

import difflib
import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sft.system.errors import UserError, warn
from sft.system.processes import RANK

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow")
"""Of files with rows, in any case, and each may be followed by .gz."""
SPREADSHEETS = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
"""Of files that a program can save as .xlsx."""
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".bz2", ".xz", ".zst")
"""Of files that hold other files."""
OTHERS = (
    *SPREADSHEETS, *ARCHIVES,
    ".txt", ".md", ".log", ".doc", ".docx", ".pdf", ".html", ".htm", ".xml", ".yaml", ".yml", ".ndjson",
    ".feather", ".orc", ".pkl", ".db", ".sqlite",
)  # fmt: skip
"""Of other files that people name by mistake; hub ids have no such ending."""
METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the datasets library writes beside rows."""
LOCK = "~$"
"""How the name begins of what Excel keeps beside a workbook that is open."""
SHOWN = 5
_SIDE = re.compile("(test|valid|validation|dev|eval)[-_.]", re.IGNORECASE)
"""How names of files begin that are likely not meant for training."""
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
        os.path.exists(os.path.expanduser(path))
        or suffix(Path(path)) in OTHERS
        or bool(difflib.get_close_matches(suffix(Path(path)), SUFFIXES, cutoff=0.75))  # typing errors, too
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
        paths = _files(source) if is_local(source.path) else [source.path]
        found += [source._replace(path=path) for path in paths]
    seen: dict[str, Source] = {}
    for source in found:
        path = source.path
        place = str(Path(path).resolve()) if is_local(path) else f"{path}@{source.revision}"
        other = seen.setdefault(place, source)
        if other.side != source.side:
            keys = " and ".join(f"data.{side or 'path'}" for side in (other.side, source.side))
            raise UserError(f"{path}: is named in {keys}; the rows of a file stand on one side, so name it in one")
        if other is not source:
            raise UserError(f"{path}: is named twice in section data; weight: 2 shows its rows twice")
    return found


def _files(source: Source) -> list[str]:
    path, place = source.path, Path(os.path.expanduser(source.path))
    try:
        if place.is_dir():
            inside = [str(file) for file in sorted(place.iterdir()) if not file.name.startswith(".")]
            return _of_rows(source, inside, "directory")
        if not place.exists() and is_pattern(path):
            return _of_rows(source, sorted(glob.glob(str(place), recursive=True)), "pattern")
        if not place.exists():
            raise UserError(f"{path}: no such data file; rows are read from a hub id or a {KINDS}")
    except OSError as error:  # a link to itself, a directory that may not be read
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not place.is_file() or suffix(place) not in SUFFIXES:
        remedies = dict.fromkeys(SPREADSHEETS, "; save it as .xlsx") | dict.fromkeys(ARCHIVES, "; unpack it")
        remedy = remedies.get(suffix(place), "")
        raise UserError(f"{path}: not a data file; data.path takes a hub id or a {KINDS}{remedy}")
    return [str(place)]


def _of_rows(source: Source, names: list[str], what: str) -> list[str]:
    """Those of the names that are files with rows; what else there is, is named."""
    paths = [Path(name) for name in names if not Path(name).name.startswith(LOCK)]
    files = [path for path in paths if _has_rows(path)]
    if not files:
        inside = (file for path in paths if path.is_dir() for file in sorted(path.rglob("*")) if _has_rows(file))
        first = min(inside, key=lambda file: "train" not in f"{file.parent.name}/{file.name}", default=None)
        deeper = f"{first.parent}/*{first.suffix}" if first else ""
        takes = f"for what lies deeper: {deeper}" if deeper else f"data.path takes a hub id or a {KINDS}"
        raise UserError(f"{source.path}: this {what} has no data file; {takes}")
    if RANK == 0:
        whole = "**" in source.path  # what is in directories is matched, too
        others = [path for path in paths if path not in files and path.name not in METADATA]
        named = [f"{path.name}/" if path.is_dir() else path.name for path in others if not (whole and path.is_dir())]
        warn([f"{source.path}: not read: {_few(named)}"] * bool(named))
        sides = [path.name for path in files if source.side is None and _SIDE.match(path.name)]
        if 0 < len(sides) < len(files):
            remedy = "data.validation and data.test take files of their own"
            warn([f"{source.path}: {_few(sides)} trained on like the other files; {remedy}"])
    return [str(path) for path in files]


def _has_rows(path: Path) -> bool:
    return suffix(path) in SUFFIXES and path.is_file() and path.name not in METADATA


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
