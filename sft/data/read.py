"""Rows of files and hub data sets are read, checked and kept on disk; nothing is dropped without being counted.

What a file holds goes down the stages: sources, tables, schemas, cells, checked rows, defects; each is a file here.
"""

import base64
import contextlib
import dataclasses
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from sft.data.drops import Dropped, Drops, FileRead, in_words
from sft.data.fields.cells import CellNotes, is_empty, whole_number
from sft.data.fields.checked import checked_row
from sft.data.fields.defects import DEFECTS, first_defect
from sft.data.fields.schemas import not_recognised
from sft.data.files.raw import ACROSS, BadRow, Shown, Table
from sft.data.files.sources import Source, files_of, is_local
from sft.data.readable import Schemas, readable
from sft.data.records import Group, category_name
from sft.data.rows import write_rows
from sft.data.split import HELD_ELSEWHERE
from sft.system.errors import UserError
from sft.system.files import file_sha256
from sft.system.texts import Count, text
from sft.system.waiting import watched


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """The usable rows of a data set (see `sft.data.rows`), the unusable ones, and what was found on the way.

    `dropped` holds the first few unusable rows of each (reason, category), `drop_counts` counts them all; `cells` are
    the cells that were repaired or look wrong.
    """

    rows: datasets.Dataset
    dropped: list[Dropped]
    drop_counts: Counter[tuple[str, str]]
    files: tuple[FileRead, ...] = ()
    cells: CellNotes = dataclasses.field(default_factory=CellNotes)

    @property
    def sha256(self) -> str:
        """SHA-256 of the usable rows' content."""
        return self.rows._fingerprint

    @property
    def unusable(self) -> Counter[tuple[str, str]]:
        """The unusable rows by (reason, category), without those that somebody asked to leave out."""
        asked = {*DEFECTS.values(), HELD_ELSEWHERE}
        return Counter({kind: count for kind, count in self.drop_counts.items() if kind[0] not in asked})

    def too_many_unusable(self, allowed: float) -> bool:
        """Whether more than this share of the rows is unusable; those that are left out on purpose are in no count."""
        unusable = self.unusable.total()
        return unusable > allowed * (len(self.rows) + unusable)

    def read_report(self) -> list[str]:
        """One line a file, in the reader's language: as what it was read."""
        return [text("rows.file_as", path=file.path, found=file.found, rows=Count(file.rows)) for file in self.files]

    def drop_report(self) -> list[str]:
        """One line a reason and category, with the first few places; empty when nothing was dropped."""
        drops = Drops()
        drops.first, drops.counts = self.dropped, self.drop_counts
        return drops.report()


def load_data(
    sources: str | Sequence[Source], leave_out: Collection[str] = (), groups: Mapping[str, Group] | None = None
) -> LoadedData:
    """Load and check every row of the sources; a text is the path of a single one.

    `leave_out` names defects (see `sft.data.fields.defects`) whose rows are dropped, `groups` is `data.groups`. Raises
    UserError when a file cannot be read, its columns are not recognised, or it holds no usable row.
    """
    named = [Source(sources)] if isinstance(sources, str) else sources
    reader = _Reader(files_of(named), leave_out)
    rows = write_rows(watched(reader.rows(), text("rows.reading")), groups)
    return LoadedData(rows, reader.drops.first, reader.drops.counts, tuple(reader.files), reader.cells)


def raw_rows(sources: Sequence[Source], leave_out: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The checked rows as they come, before they have ids: the fields of a row, `file` (a number) and `place`."""
    return _Reader(files_of(sources), leave_out).rows()


class _Reader:
    """Reads files one after another, and remembers what was found."""

    def __init__(self, sources: Sequence[Source], leave_out: Collection[str]) -> None:
        self.sources, self.leave_out = sources, leave_out
        self.names = Counter(Path(source.path).name for source in sources)
        self.drops, self.cells = Drops(), CellNotes()
        self.files: list[FileRead] = []

    def rows(self) -> Iterator[dict[str, Any]]:
        """The usable rows. Raises UserError for a file that has none."""
        for number, source in enumerate(self.sources):
            with _reading(source):
                yield from self._rows_of(number, source)

    def _rows_of(self, number: int, source: Source) -> Iterator[dict[str, Any]]:
        before, usable = Counter(self.drops.counts), 0
        prefix = self._prefix(source)
        found = []
        last, nothing = Schemas(source), "it is empty"
        for table, schemas in readable(source):
            last, above = schemas, usable
            if table.columns:
                nothing = f"it has columns and no rows: {', '.join(filter(None, table.columns))}"
            for place, row in table.rows(schemas.wanted()):
                place = prefix + place
                if (values := self._checked(row, schemas, place)) is not None:
                    usable += 1
                    yield values | {"file": number, "place": place}
            found.append((schemas.names(), table.form + schemas.unread(table), usable - above))
        new = self.drops.counts - before
        if not usable:
            reasons = "; ".join(self.drops.report()[:3]) or nothing
            reason = new.most_common(1)[0][0][0] if new else None
            raise UserError(f"{source.path}: no usable row ({reasons}); {last.remedy(reason)}")
        digest = file_sha256(Path(source.path)) if is_local(source.path) else None
        dropped = new.total()
        self.files.append(FileRead(source.path, source.weight, digest, usable, dropped, tuple(found), source.side))

    def _prefix(self, source: Source) -> str:
        """What tells a source's places from those of others: its name, or its path where two have the same name."""
        if len(self.sources) == 1:
            return ""
        name = Path(source.path).name
        return f"{name if self.names[name] == 1 else source.path} "

    def _checked(self, row: Any, schemas: Schemas, place: str) -> dict[str, Any] | None:
        """The fields of a row; None where it is dropped."""
        category = None
        try:
            if isinstance(row, BadRow):
                raise row
            if not isinstance(row, Mapping):
                raise BadRow("not an object with fields")
            schema = schemas.of(row)
            category = whole_number(schema.value(row, "category"))
            values = checked_row(row, schema, place, self.cells)
            if defect := first_defect(values, self.leave_out):
                raise BadRow(DEFECTS[defect])
            return values
        except BadRow as reason:
            heading = isinstance(category, Shown) and category.kind == ACROSS
            said = isinstance(category, str) and not is_empty(category) and not heading
            name = category_name(category) if said else ""
            self.drops.add(place, str(reason), name)
            return None


class Asked(NamedTuple):
    """A row that asks: its place, all that the file has of it, and the question in it as training would read it.

    `problem` says why it asks nothing after all; the question is empty then.
    """

    place: str
    columns: dict[str, Any]
    instruction: str = ""
    input: str = ""
    history: tuple[tuple[str, str], ...] = ()
    problem: str | None = None


def read_questions(path: str, columns: Mapping[str, str | None] | None) -> tuple[list[Asked], str]:
    """The questions in a file as `load_data` would read them, but for their answers; and what was read as what.

    Raises UserError where no row asks anything, and for one that could not be written again as it is.
    """
    asked: list[Asked] = []
    found = []
    for source in files_of([Source(path, columns=columns)]):
        with _reading(source):
            for table, schemas in readable(source, asks=True):
                asked += _asked(source.path, table, schemas)
                found.append((schemas.names(), table.form + schemas.unread(table)))
    if not asked:
        raise UserError(f"{path}: no questions in it")
    if all(question.problem for question in asked):
        raise UserError(f"{path}: {asked[0].place}: {asked[0].problem}")
    return asked, in_words(found)


def _asked(path: str, table: Table, schemas: Schemas) -> Iterator[Asked]:
    names = list(table.columns or ())
    for name in dict.fromkeys(names):
        if (count := names.count(name)) > 1:
            what = f"are called {name}" if name else "have no name"
            raise UserError(f"{path}: {count} columns {what}; the answers' file needs a name for each")
    for place, row in table.rows(None):
        if not isinstance(row, Mapping):
            raise UserError(f"{path}: {place}: {row if isinstance(row, BadRow) else 'not an object with fields'}")
        try:
            # Every field is written again beside its answer; the lists around it are room for a deeper stack then.
            written = json.dumps([[[[row]]]], ensure_ascii=False, default=_in_json)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: {place}: cannot be written again as JSON: {error}") from None
        whole = written.encode(errors="replace").decode()
        [[[[columns]]]] = json.loads(whole)
        if whole == written:
            yield _question(place, row, columns, schemas)
        else:
            problem = "cannot be written again as JSON: it is not valid Unicode (a lone surrogate)"
            yield Asked(place, columns, problem=problem)


def _in_json(value: Any) -> str:
    """What parquet has and JSON has not, as text: dates, times and decimals as they are read, bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _question(place: str, row: Mapping[str, Any], columns: dict[str, Any], schemas: Schemas) -> Asked:
    try:
        schema = schemas.of(row)
    except BadRow as reason:
        return Asked(place, columns, problem=not_recognised(tuple(row), schemas.given, str(reason), asks=True))
    try:
        fields = checked_row(row, schema, place, CellNotes())
    except BadRow as reason:
        return Asked(place, columns, problem=str(reason))
    return Asked(place, columns, fields["instruction"], fields["input"], tuple(map(tuple, fields["history"])))


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Say in one line what the system or gzip refuses, and that a file became another one while it was read."""
    before = _state(source)
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{source.path}: not a whole gzip file: {error}; copy it again") from None
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read: {error.strerror or error}") from None
    except UserError:
        _refuse_change(source, before)
        raise
    _refuse_change(source, before)


def _state(source: Source) -> tuple[int, ...] | None:
    """What changes when somebody writes to a file; None for a hub data set, and where there is no file any more."""
    try:
        found = Path(source.path).stat() if is_local(source.path) else None
    except OSError:
        return None
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)


def _refuse_change(source: Source, before: tuple[int, ...] | None) -> None:
    if _state(source) != before:
        raise UserError(
            f"{source.path}: was changed while it was read; read it again when nothing writes to it any more"
        ) from None
