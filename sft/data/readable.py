"""The tables of a source that can be read, each with the schemas of its rows; sheets that cannot are said."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sft.data.fields.schemas import (
    Schema,
    are_sentences,
    columns_named,
    header_schema,
    is_header,
    not_recognised,
    schema_of,
)
from sft.data.files.raw import BadRow, Table
from sft.data.files.sources import Source
from sft.data.files.tables import tables_of
from sft.system.errors import UserError, warn
from sft.system.processes import RANK

ASKED = ("instruction", "output", "messages", "text")
"""Fields that no sheet is read without, where `data.columns` names them."""
REMEDIES = {
    "is not text": "write it as a text: in JSON in quotation marks, in tables with astype(str)",
    "not UTF-8": "save the file as UTF-8",
    "messages are not JSON": "to_csv of pandas writes lists as Python does; write the file with "
    'to_json(orient="records", lines=True)',
    "not JSON": "write each line with a program, or call the file .csv or .tsv where it is a table",
    "an unknown role": "roles are system, user and assistant",
    "does not end with an answer": "the last message is the answer that is to be learned",
    "not an object with fields": 'each row is an object, such as {"question": "…", "answer": "…"} or {"messages": […]}',
    "holds no prompt": "write question and answer in two columns, or as messages",
}
"""What to do about rows that are dropped, by words of the reason."""
SHOWN_COLUMNS = 4
"""So many columns that are not read are named."""
KEY_SETS = 1000
"""So many sets of keys in rows of JSON are remembered with their schemas."""


class Schemas:
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

    def remedy(self, reason: str | None) -> str:
        """What to do about rows of which none is usable, most of them for this reason (None: there are none)."""
        for keys, missing in self.by_keys.items():
            if isinstance(missing, BadRow) and are_sentences(keys):
                return REMEDIES["not an object with fields"]
            if isinstance(missing, BadRow):
                return not_recognised(keys, self.given, str(missing))
        if reason is None:
            return "rows need a question and an answer"
        return next((remedy for words, remedy in REMEDIES.items() if words in reason), "mend these rows in the file")


def _given(source: Source, table: Table) -> tuple[Mapping[str, str | None] | None, str]:
    """`data.columns` for one of several sheets, and what to say of columns that it lacks; ASKED's it may not."""
    there = table.columns or ()
    named = source.columns or {}
    given = {
        field: name for field, name in named.items() if name is None or field in ASKED or columns_named(name, there)
    }
    lacking = [name for field, name in named.items() if name is not None and field not in given]
    return given or None, f"; without {', '.join(lacking)}" if lacking else ""


def readable(source: Source, asks: bool = False) -> list[tuple[Table, Schemas]]:
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
            readable.append((table, Schemas(source, asks=asks)))
        elif not any(table.columns):
            raise empty
        else:
            where = f'{source.path}: sheet "{table.sheet}"' if table.sheet and len(tables) > 1 else source.path
            given, lacking = _given(source, table) if len(tables) > 1 else (source.columns, "")
            try:
                schema_of(table.columns, given, asks)
            except BadRow:
                left_out.append(f'sheet "{table.sheet}"')
                refused.append((where, table))
                continue
            schema = header_schema(where, table.columns, given, asks)
            readable.append((table._replace(form=table.form + lacking), Schemas(source, schema)))
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
