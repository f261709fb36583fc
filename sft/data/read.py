"""Rows of files and hub data sets are read, checked and kept on disk; nothing is dropped without being counted.

What a file holds goes down the stages: sources, tables, schemas, cells, checked rows, defects; each is a file here.
"""

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

from sft.data.drops import Dropped, Drops, FileRead
from sft.data.fields.cells import CellNotes, is_empty
from sft.data.fields.checked import checked_row
from sft.data.fields.defects import DEFECTS, first_defect
from sft.data.fields.schemas import Schema, header_schema, is_header, not_recognised, schema_of
from sft.data.files.raw import BadRow, Table
from sft.data.files.sources import Source, files_of, is_local
from sft.data.files.tables import tables_of
from sft.data.records import Group, category_name
from sft.data.rows import write_rows
from sft.system.errors import UserError, warn
from sft.system.files import file_sha256
from sft.system.processes import RANK
from sft.system.texts import text
from sft.system.visible import counted
from sft.system.waiting import watched

SHOWN_COLUMNS = 4
"""So many columns that are not read are named."""
KEY_SETS = 1000
"""So many sets of keys in rows of JSON are remembered with their schemas."""


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

    def read_report(self) -> list[str]:
        """One line a file: as what it was read."""
        return [f"{file.path}: read as {file.found}, {counted(file.rows, 'row')}" for file in self.files]

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
        before, usable = self.drops.counts.total(), 0
        prefix = self._prefix(source)
        found = []
        last, nothing = _Schemas(source), "it is empty"
        for table, schemas in _readable(source):
            last = schemas
            if table.columns:
                nothing = f"it has columns and no rows: {', '.join(filter(None, table.columns))}"
            for place, row in table.rows(schemas.wanted()):
                place = prefix + place
                if (values := self._checked(row, schemas, place)) is not None:
                    usable += 1
                    yield values | {"file": number, "place": place}
            found.append((schemas.names(), table.form + schemas.unread(table)))
        dropped = self.drops.counts.total() - before
        if not usable:
            reasons = "; ".join(self.drops.report()[:3]) or nothing
            raise UserError(f"{source.path}: no usable row ({reasons}); {last.remedy()}")
        digest = file_sha256(Path(source.path)) if is_local(source.path) else None
        self.files.append(FileRead(source.path, source.weight, digest, usable, dropped, tuple(found), source.side))

    def _prefix(self, source: Source) -> str:
        """What tells a source's places from those of others: its name, or its path where two have the same name."""
        if len(self.sources) == 1:
            return ""
        name = Path(source.path).name
        return f"{name if self.names[name] == 1 else source.path} "

    def _checked(self, row: Any, schemas: "_Schemas", place: str) -> dict[str, Any] | None:
        """The fields of a row; None where it is dropped."""
        category = None
        try:
            if isinstance(row, BadRow):
                raise row
            if not isinstance(row, Mapping):
                raise BadRow("not an object with fields")
            schema = schemas.of(row)
            category = schema.value(row, "category")
            values = checked_row(row, schema, place, self.cells)
            if defect := first_defect(values, self.leave_out):
                raise BadRow(DEFECTS[defect])
            return values
        except BadRow as reason:
            name = category_name(category) if isinstance(category, str) and not is_empty(category) else ""
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
            for table, schemas in _readable(source, asks=True):
                asked += _asked(source.path, table, schemas)
                found.append(f"{schemas.names()} ({table.form}{schemas.unread(table)})")
    if not asked:
        raise UserError(f"{path}: no questions in it")
    if all(question.problem for question in asked):
        raise UserError(f"{path}: {asked[0].place}: {asked[0].problem}")
    return asked, "; ".join(found)


def _asked(path: str, table: Table, schemas: "_Schemas") -> Iterator[Asked]:
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
            json.dumps([[[[row]]]], ensure_ascii=False).encode()
        except (ValueError, RecursionError, TypeError) as error:
            raise UserError(f"{path}: {place}: cannot be written again as JSON: {error}") from None
        yield _question(place, dict(row), schemas)


def _question(place: str, row: dict[str, Any], schemas: "_Schemas") -> Asked:
    try:
        schema = schemas.of(row)
    except BadRow as reason:
        return Asked(place, row, problem=not_recognised(tuple(row), schemas.given, str(reason), asks=True))
    try:
        fields = checked_row(row, schema, place, CellNotes())
    except BadRow as reason:
        return Asked(place, row, problem=str(reason))
    return Asked(place, row, fields["instruction"], fields["input"], tuple(map(tuple, fields["history"])))


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


class _Schemas:
    """The schemas of a table's rows: one where it has a header, else one for each set of keys."""

    def __init__(self, source: Source, header: Schema | None = None, asks: bool = False) -> None:
        self.given, self.header, self.asks = source.columns, header, asks
        self.by_keys: dict[tuple[str, ...], Schema | BadRow] = {}
        self.rows: Counter[tuple[str, ...]] = Counter()

    def of(self, row: Mapping[str, Any]) -> Schema:
        """The schema of a row. Raises BadRow for what is missing."""
        if self.header is not None:
            return self.header
        keys = tuple(row)
        schema = self.by_keys.get(keys)
        if schema is None:
            try:
                schema = schema_of(keys, self.given, self.asks)
            except BadRow as reason:
                schema = reason
            if len(self.by_keys) < KEY_SETS:
                self.by_keys[keys] = schema
        self.rows[keys] += keys in self.by_keys
        if isinstance(schema, BadRow):
            raise schema
        return schema

    def wanted(self) -> list[str] | None:
        """The columns that are read; None: all."""
        if self.header is None:
            return None
        return list(dict.fromkeys(name for names in self.header.columns.values() for name in names))

    def names(self) -> str:
        """The schemas in words, those of most rows first."""
        if self.header is not None:
            return self.header.name
        names: Counter[str] = Counter()
        for keys, schema in self.by_keys.items():
            if isinstance(schema, Schema):
                names[schema.name] += self.rows[keys]
        return "; ".join(name for name, _ in names.most_common(3)) + ("; …" if len(names) > 3 else "")

    def unread(self, table: Table) -> str:
        """What to say of columns that are not read; "" where all are."""
        tables = self.by_keys.items() if self.header is None else [(table.columns or (), self.header)]
        read = [schema.unread(columns) for columns, schema in tables if isinstance(schema, Schema)]
        names = list(dict.fromkeys(name for unread in read for name in unread))
        more = f" and {len(names) - SHOWN_COLUMNS:,} more" if len(names) > SHOWN_COLUMNS else ""
        return f"; not read: {', '.join(names[:SHOWN_COLUMNS])}{more}" if names else ""

    def remedy(self) -> str:
        """What to do about rows of which none is usable."""
        for keys, reason in self.by_keys.items():
            if isinstance(reason, BadRow):
                return not_recognised(keys, self.given, str(reason))
        return "rows need a question and an answer"


def _readable(source: Source, asks: bool = False) -> list[tuple[Table, _Schemas]]:
    """The tables of a source with their schemas; sheets whose columns are not recognised are left out beside others.

    Raises UserError where no table's columns are recognised, or they could mean two things.
    """
    tables = tables_of(source, lambda cells: is_header(cells, source.columns, asks))
    reason = "no questions in it" if asks else "no usable row (it is empty); rows need a question and an answer"
    empty = UserError(f"{source.path}: {reason}")
    if not tables:
        raise empty
    readable, refused, left_out = [], [], []
    for table in tables:
        if table.columns is None:
            readable.append((table, _Schemas(source, asks=asks)))
        elif not any(table.columns):
            raise empty
        else:
            where = f'{source.path}: sheet "{table.sheet}"' if table.sheet and len(tables) > 1 else source.path
            try:
                schema_of(table.columns, source.columns, asks)
            except BadRow:
                left_out.append(f'sheet "{table.sheet}"')
                refused.append((where, table))
                continue
            readable.append((table, _Schemas(source, header_schema(where, table.columns, source.columns, asks))))
    if not readable:
        where, table = max(refused, key=lambda refusal: len(refusal[1].columns or ()))
        header_schema(where, table.columns or (), source.columns, asks)
    if left_out:
        table, schemas = readable[-1]
        readable[-1] = table._replace(form=f"{table.form}; {', '.join(left_out)} left out"), schemas
        if RANK == 0:
            warn([
                f"{source.path}: {', '.join(left_out)} left out, whose columns are not recognised; name them in its "
                "first row, or with data.columns"
            ])  # fmt: skip
    return readable
