"""Which column holds which field: common schemas are recognised by their columns, others are asked for."""

import difflib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sft.data.files.raw import BadRow
from sft.system.errors import UserError

NAMES: dict[str, tuple[str, ...]] = {
    "instruction": (
        "instruction", "question", "prompt", "q", "指示", "質問", "質問文", "質問内容", "問い", "問", "問題", "設問",
        "問い合わせ", "問い合わせ内容", "問合せ", "お問い合わせ", "お問い合わせ内容", "プロンプト",
    ),
    "input": (
        "input", "context", "passage", "入力", "文脈", "補足情報", "補足", "本文", "参考情報", "参考", "背景",
        "コンテキスト",
    ),
    "output": (
        "output", "response", "answer", "completion", "a", "出力", "回答", "回答文", "回答内容", "答え", "応答",
        "返答", "解答", "対応内容",
    ),
    "category": (
        "category", "カテゴリ", "カテゴリー", "分類", "区分", "種別", "ジャンル", "カテゴリ名", "カテゴリー名",
        "分類名", "区分名", "種別名", "ジャンル名", "大分類",
    ),
    "index": ("index", "id", "no", "番号", "項番", "通番", "連番", "#"),
    "answers": ("answers",),
    "system": ("system", "systemprompt", "システム", "システムプロンプト"),
    "history": ("history", "履歴"),
    "messages": ("messages", "conversations", "conversation", "会話"),
    "text": ("text", "テキスト"),
}  # fmt: skip
"""What a field's column may be called, the names as `plain` has them; the first is ours."""
FIELDS = tuple(NAMES)
_FIELD_OF = {name: field for field, names in NAMES.items() for name in names}
_ASKED = ("instruction", "input", "output", "category")
"""Fields that `data.columns` is likely to need, in the order in which people read them."""
KNOWN = {
    ("instruction", "input", "output", "category"): "dolly-ja",
    ("instruction", "context", "response", "category"): "dolly",
    ("instruction", "input", "output"): "alpaca",
    ("instruction", "output"): "alpaca",
    ("question", "context", "answers"): "SQuAD",
    ("question", "answer"): "question and answer",
    ("question", "context", "answer"): "question, context and answer",
    ("prompt", "completion"): "prompt and completion",
    ("prompt", "response"): "prompt and response",
    ("messages",): "messages",
    ("conversations",): "ShareGPT conversations",
    ("text",): "text with a template",
}
"""Schemas that have a name, by their columns."""
_SENTENCE = re.compile(r"(?:[。？！?!]|\w.{10,}\.|です|ます|ません|ですか|ますか|ください)\s*$")
"""A cell of which nobody makes the name of a column."""
_BRACKETED = re.compile(r"[(\[<【〔「『〈《].*?[)\]>】〕」』〉》]")
_BRACKETS = re.compile(r"[()\[\]<>【】〔〕「」『』〈〉《》]")
_ADORNED = re.compile(r"^\W*(?:ご|お|御|想定|よくある|模範)?|※.*$|内容$")


def plain(name: str) -> str:
    """A column's name without case, width, white space, and signs between words or at its end."""
    name = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\-\u200b\ufeff]+|[.:*]+$", "", re.sub(r"[\s.:*]+$", "", name))


def _unbracketed(name: str) -> str:
    """A column's name as `plain` has it, without parts in brackets; the text inside where all of it stands in them."""
    name = unicodedata.normalize("NFKC", name)
    return plain(_BRACKETED.sub("", name)) or plain(_BRACKETS.sub("", name))


def _unadorned(name: str) -> str:
    """A column's name as `_unbracketed` has it, without marks, notes and polite words (■質問, ご回答, 想定質問)."""
    return _ADORNED.sub("", _unbracketed(name))


_FORMS = (plain, _unbracketed, _unadorned)
"""What is made of a column's name before it is looked up; a later form counts where no column has an earlier one."""


def _field_of(name: str) -> str | None:
    """The field that a column's name stands for; None: none that is known."""
    return next((field for form in _FORMS if (field := _FIELD_OF.get(form(name)))), None)


def _columns_of(field: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a field, those of better known names first."""
    for form in _FORMS:
        if names := [column for column in columns if _FIELD_OF.get(form(column)) == field]:
            return tuple(sorted(names, key=lambda column: NAMES[field].index(form(column))))
    return ()


def columns_named(name: str, columns: Sequence[str]) -> list[str]:
    """The columns that a user means by a name: as it is, as `plain` has it, or the only one of it with brackets."""
    for form in (str, plain):
        if same := [column for column in columns if form(column) == form(name)]:
            return same
    same = [column for column in columns if _unbracketed(column) == plain(name)]
    return same if len(same) == 1 else []


def _on_one_line(name: str) -> str:
    """A column's name as messages show it: spreadsheets wrap long ones."""
    return " ".join(name.split())


class Schema(NamedTuple):
    """Which columns hold a field, by field (more than one: they have to agree), and what this is called.

    `asks`: the rows are questions; their answers, if they have any, are not read.
    """

    columns: Mapping[str, tuple[str, ...]]
    asks: bool = False

    @property
    def name(self) -> str:
        """The schema's usual name, or what is read as what."""
        read = [field for field in self.columns if field not in ("index", "system")]
        columns = {field: _on_one_line(self.columns[field][0]) for field in read}
        known = KNOWN.get(tuple(plain(columns[field]) for field in (*_ASKED, *FIELDS[5:]) if field in columns))
        words = {field: name if plain(name) == field else f"{name} → {field}" for field, name in columns.items()}
        if holder := next((field for field in _HOLDERS if field in columns), None):
            words = {"": known or _HOLDERS[holder]} | words
            del words[holder]
            words.pop("category", None)
            known = None
        named = known or ", ".join(words.values())
        return named if "category" in columns or self.asks else f"{named}, no categories"

    def unread(self, columns: Sequence[str]) -> list[str]:
        """Which of a table's columns are not read, but for those that only number rows."""
        read = {name for names in self.columns.values() for name in names}
        passed = ("index", "output", "answers", "category") if self.asks else ("index",)
        left = [name for name in columns if name.strip() and name not in read and _field_of(name) not in passed]
        return [_on_one_line(name) for name in left if not name.startswith(_NUMBERING)]

    def value(self, row: Mapping[str, Any], field: str) -> Any:
        """What a row holds for a field; None for nothing. Raises BadRow where columns of one field differ."""
        columns = self.columns.get(field)
        if columns is None:
            return None
        if len(columns) == 1:
            return row.get(columns[0])
        names = [name for name in columns if name in row]
        for other in names[1:]:
            if row[other] != row[names[0]]:
                raise BadRow(f"{names[0]} and {other} are both there and differ")
        return row[names[0]] if names else None

    def spelt(self, field: str) -> str:
        """A field's name in the file, on one line."""
        return _on_one_line(self.columns[field][0]) if field in self.columns else field


_NUMBERING = ("Unnamed:", "__index_level_")
"""How pandas calls the columns of its own row numbers."""
_QUESTION = ("instruction", "messages", "text")
"""Fields that a question may stand in."""
_BESIDE = {"input", "answers", "history"}
"""What messages and texts may have in columns of their own, where the user names these."""
_NOT_BESIDE = {"messages", "text", "instruction", "output"}
_HOLDERS = {"messages": "messages", "text": "text with a template"}


def schema_of(columns: Sequence[str], given: Mapping[str, str | None] | None, asks: bool = False) -> Schema:
    """The schema of rows with these columns; `given` is what the user says of some fields.

    `asks`: the rows are questions, and may lack all columns but theirs. Raises BadRow with the first thing that is
    missing.
    """
    given = given or {}
    found: dict[str, tuple[str, ...]] = {}
    for field, name in given.items():
        if name is not None:
            same = columns_named(name, columns)
            if not same and not (asks and field not in _QUESTION):
                raise BadRow(f"no column {name}")
            if same:
                found[field] = tuple(same[:1])
    taken = {name for names in found.values() for name in names}
    for field in FIELDS:
        recognised = field not in given or (asks and given[field] is not None and field not in found)
        if recognised and (names := _columns_of(field, [column for column in columns if column not in taken])):
            found[field] = names
    return Schema(_kind(found, given, asks), asks)


def _kind(found: dict[str, tuple[str, ...]], given: Mapping[str, str | None], asks: bool) -> dict[str, tuple[str, ...]]:
    """The columns that are read: those of a question and answer, of messages, or of a text."""
    answered = "output" in found or "answers" in found
    pair = "instruction" in found and (answered or (asks and not {"messages", "text"} & found.keys()))
    named = {field for field, name in given.items() if name is not None and field in found}
    asked = next((field for field in _HOLDERS if field in named), None)
    if pair and "messages" in found and not asked and not given.keys() & {"instruction", "output"}:
        raise BadRow(f"both {found['instruction'][0]} and {found['messages'][0]}: data.columns says which is meant")
    holder = asked or next((field for field in _HOLDERS if field in found), None)
    if pair and not asked:
        kept = {"messages", "text"}
    elif holder:
        kept = (_NOT_BESIDE | _BESIDE - named) - {holder}
    else:
        raise BadRow(f"no {'output' if 'instruction' in found else 'instruction'}")
    if not asks and (refused := [field for field in FIELDS if field in kept & named]):
        raise BadRow(f"data.columns names {refused[0]} beside {holder}, which has its own")
    if asks:
        kept |= {"output", "answers", "category", "index"}
    columns = {field: names for field, names in found.items() if field not in kept}
    return columns | ({"index": columns["index"][:1]} if "index" in columns else {})


def is_header(cells: Sequence[str], given: Mapping[str, str | None] | None, asks: bool = False) -> bool:
    """Whether a row of cells can be nothing but the names of columns: of a question, its answer, or other fields."""
    named = set((given or {}).values())
    if sum(cell in named or _field_of(cell) is not None for cell in cells) < 2:
        return False
    try:
        schema_of(cells, given, asks)
    except BadRow:
        return False
    return True


def header_schema(
    path: str, columns: Sequence[str], given: Mapping[str, str | None] | None, asks: bool = False
) -> Schema:
    """The schema of a table with a header. Raises UserError for columns that cannot be told, with a line to copy."""
    try:
        schema = schema_of(columns, given, asks)
    except BadRow as reason:
        raise UserError(f"{path}: {not_recognised(columns, given, str(reason), asks)}") from None
    for field, names in schema.columns.items():
        if len(names) > 1 and len(set(names)) == 1:
            raise UserError(f"{path}: {len(names)} columns are called {names[0]}; keep one of them")
        if len(names) > 1:
            which = " or ".join(names)
            line = columns_line({field: names[0]})
            raise UserError(f"{path}: which column is the {field}, {which}? For the first one: {line}")
    for name in {name for names in schema.columns.values() for name in names}:
        if list(columns).count(name) > 1:
            raise UserError(f"{path}: {list(columns).count(name)} columns are called {name}; keep one of them")
    return schema


def not_recognised(
    columns: Sequence[str], given: Mapping[str, str | None] | None, reason: str, asks: bool = False
) -> str:
    """That columns are not recognised, which there are, and a line to copy."""
    names = [name for name in columns if name.strip()]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    for name in (given or {}).values():
        if name is not None and reason == f"no column {name}":
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"data.columns: {reason} among {shown}{hint}"
    if reason.startswith("data.columns "):
        return f"{reason}; take it out of data.columns (columns: {shown})"
    if reason.startswith("both "):
        return f"{reason} (columns: {shown}); for the messages alone: {columns_line({'messages': 'messages'})}"
    if are_sentences(names):
        return f"{reason} (columns: {shown}); these are no names: write a row of names above, such as 質問,回答"
    if asks:
        example = f", for example {columns_line({'instruction': names[0]})}" if names else ""
        return f"{reason} (columns: {shown or 'none'}); say which column is the question{example}"
    if len(names) < 2:
        return f"{reason} (columns: {shown or 'none'}); rows need a question and an answer, in two columns"
    fields = {field: name for name in reversed(names) if (field := _field_of(name))}
    left = [name for name in names if name not in fields.values() and plain(name) != "rejected"]
    if "instruction" not in fields and (chosen := [name for name in left if plain(name) == "chosen"]):
        line = columns_line({"messages": chosen[0]})
        return f"{reason} (columns: {shown}); where {chosen[0]} holds conversations, train on those with {line}"
    if "output" not in fields and "instruction" in fields:  # what stands next to the question is likelier its answer
        behind = [name for name in names[names.index(fields["instruction"]) + 1 :] if name in left]
        if behind:
            fields["output"] = left.pop(left.index(behind[0]))
    if "instruction" not in fields and "input" in fields and not left:
        fields["instruction"] = fields.pop("input")
    for field, place in (("instruction", 0), ("output", -1)):
        if field not in fields and left:
            fields[field] = left.pop(place)
    guess = {field: fields[field] for field in _ASKED if field in fields}
    if not {"instruction", "output"} <= guess.keys():
        alone = "; questions alone are for infer.py --questions" if "output" not in guess else ""
        return f"{reason} (columns: {shown}); rows need a question and an answer, in two columns{alone}"
    return f"{reason} (columns: {shown}); say which column is what, for example {columns_line(guess)}"


def are_sentences(names: Sequence[str]) -> bool:
    """Whether what should be names of columns are texts themselves."""
    return bool(names) and sum(_SENTENCE.search(name) is not None for name in names) >= min(2, len(names))


def columns_line(columns: Mapping[str, str]) -> str:
    """What to write on the command line, quoted for a shell."""
    pairs = (f"{field}: {_yaml(name)}" for field, name in columns.items())
    return f"'data.columns={{{', '.join(pairs)}}}'"


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[^\W\d_][\w ]*(?<! )", name) else json.dumps(name, ensure_ascii=False)
