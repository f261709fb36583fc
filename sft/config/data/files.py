"""`data.path` and its kin: one file or several, each with its weight, columns and revision; and `data.columns`."""

import contextlib
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from sft.config.section import Section
from sft.data.fields.defects import Defect
from sft.data.fields.schemas import FIELDS
from sft.data.files.sources import Held, Source, files_of, is_local
from sft.system.errors import UserError

WEIGHT_LIMIT = 1000


def checked_columns(columns: Mapping[str, str | None] | None) -> Mapping[str, str | None] | None:
    """`columns` if they name fields of rows, and no column twice. Raises ValueError otherwise."""
    for field in columns or {}:
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(FIELDS)}"
            raise ValueError(f"{field} is no field of a row; {hint}")
    if columns is not None and not columns:
        raise ValueError("names no column; leave it out, or write for example {instruction: 質問, output: 回答}")
    names: dict[str, str] = {}
    for field, name in (columns or {}).items():
        if name is not None and name in names:
            raise ValueError(f"{names[name]} and {field} are both {name}; each field has a column of its own")
        if name is not None:
            names[name] = field
    return columns


Columns = Annotated[dict[str, Annotated[str, Field(min_length=1)] | None], AfterValidator(checked_columns)]
"""Which column holds which field of a row; null: the rows have no such field."""


class DataFile(Section):
    """One entry of a list of files."""

    path: str = Field(min_length=1)
    """Hub id, file, directory of files or glob."""
    weight: float = Field(1.0, gt=0, le=WEIGHT_LIMIT)
    """How often an epoch shows its rows: 2 twice, 0.5 the first half of them. It multiplies with `data.balance`."""
    columns: Columns | None = None
    """As `data.columns`, for this entry alone; null: those."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null: `data.revision`."""


def _checked_list(value: Any) -> Any:
    """A list of files with one line about the first entry that is none, which a union's own errors would not be."""
    if not isinstance(value, list):
        return value
    if not value:
        raise ValueError("an empty list; name at least one file")
    return [_checked_entry(number, entry) for number, entry in enumerate(value, start=1)]


def _checked_entry(number: int, entry: Any) -> Any:
    if isinstance(entry, str) and entry:
        return entry
    if isinstance(entry, DataFile):
        return entry
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} is neither text nor a mapping with path, weight, columns and revision")
    try:
        return DataFile.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        known = ", ".join(DataFile.model_fields)
        unknown = first["type"] in ("extra_forbidden", "invalid_key")
        what = f"unknown key; known: {known}" if unknown else first["msg"].removeprefix("Value error, ")
        what += "; leave out an entry that is not to be trained on" * (first["type"] == "greater_than")
        raise ValueError(f"entry {number}: {key}: {what}") from None


Paths = Annotated[Annotated[str, Field(min_length=1)] | list[str | DataFile], BeforeValidator(_checked_list)]
"""A hub id, a file, a directory of files, a glob; or a list of them, or of mappings (see `DataFile`)."""


class DataFiles(Section):
    """The keys of section `data` that say what is read."""

    path: Paths
    """Hub id; json, jsonl, csv, tsv, xlsx or parquet file (each also .gz), directory of such files or glob; or a list
    of them, each alone or as {path, weight, columns, revision}."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null: the newest."""
    columns: Columns | None = Field(None, description="such as {instruction: 質問, output: 回答}")
    """Which column holds which field, {instruction: 質問, output: 回答}; a field that is null is in none. What is not
    named here, and all of it when null, is recognised by the columns' names."""
    validation: Paths | None = None
    """Files of their own for the validation loss, in place of `validation_share`; null: that share of `path`."""
    test: Paths | None = None
    """Files of their own for `python -m eval`, in place of `test_share`; null: that share of `path`."""
    leave_out: list[Defect] = Field(default_factory=list)
    """Defects of translated rows whose rows are left out: copies, citations, untranslated, truncated."""
    allow_dropped: float = Field(0.1, ge=0, le=1)
    """Share of the rows that may be unusable; a training with more is refused."""

    @property
    def sources(self) -> list[Source]:
        """The entries of `path`, `validation` and `test`, each with its columns and revision, for `load_data`."""
        held: tuple[tuple[Any, Held | None], ...] = ((self.validation, "validation"), (self.test, "test"))
        return [source for paths, side in ((self.path, None), *held) for source in self._sources_of(paths, side)]

    def columns_of(self, path: str) -> Mapping[str, str | None] | None:
        """Which column of a file holds which field: as its entry says where one names the file, else as `columns`."""
        for source in self.sources:
            with contextlib.suppress(UserError):  # an entry whose files are gone does not name this one
                if any(Path(file.path).resolve() == Path(path).resolve() for file in files_of([source])):
                    return source.columns
        return self.columns

    def _sources_of(self, paths: str | list[str | DataFile] | None, side: Held | None) -> list[Source]:
        entries = [paths] if isinstance(paths, str) else paths or []
        files = [
            entry if isinstance(entry, DataFile) else DataFile.model_validate({"path": entry}) for entry in entries
        ]
        return [
            Source(file.path, file.weight, file.columns or self.columns, file.revision or self.revision, side)
            for file in files
        ]

    @property
    def named(self) -> str:
        """The data's name in messages."""
        return ", ".join(source.path for source in self.sources)

    def with_absolute_paths(self) -> Self:
        """The same section with local files spelt out."""
        changed = {name: _absolute(getattr(self, name)) for name in ("path", "validation", "test")}
        return self.model_copy(update=changed)


def _absolute(paths: Any) -> Any:
    if isinstance(paths, list):
        return [_absolute(entry) for entry in paths]
    if isinstance(paths, DataFile):
        return paths.model_copy(update={"path": _absolute(paths.path)})
    return os.path.abspath(os.path.expanduser(paths)) if paths and is_local(paths) else paths
