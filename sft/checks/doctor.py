"""What will happen, before any GPU hour: a page of lines, and the lines about tokenizer and rows.

A line is green, yellow (look: it runs, and may not be what is wanted) or red (STOP: a GPU hour would be wasted).
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from sft.data.records import category_label, category_order
from sft.data.rows import examples_of
from sft.prompt.chat_template import checked_chat_template
from sft.prompt.encode import bos_ids, encode_text
from sft.prompt.row_encoder import Fate
from sft.prompt.template import PromptTemplate
from sft.system.errors import UserError
from sft.system.texts import Count, Said, here_of, one_after_another, said, sentences, subject_word, text
from sft.system.visible import visible

EXPORT_ROWS = 100
"""Rows that the chat template of an export is tried on."""

Level = Literal["green", "yellow", "red"]
LEVELS: tuple[Level, ...] = ("red", "yellow", "green")
PAGE_WIDTH = 100

PROBES = ("Ａｚ０９", "　", "ｶﾞｷﾞ", "😀", "鱻", "𠮷")
"""What Japanese tokenizers lose most often; the newline, which the template needs, is looked at apart."""

END_SHARE = 0.99
"""Share of the rows that should teach the model to stop; below it some answers are learned without an end."""

TOKENS_PER_CHARACTER = 1.0
"""Above it, a tokenizer spells Japanese in bytes. Those made for Japanese need about half a token a character."""


class Line(NamedTuple):
    """One line of the page: what was looked at, what was found, and the remedy where it is not green."""

    level: Level
    subject: str
    found: str
    remedy: str = ""

    @classmethod
    def of(cls, level: Level, subject: str, message: object) -> "Line":
        """A line of a warning or an error whose last part, after a semicolon, is the remedy."""
        words = message if isinstance(message, str) else str(message)
        parts = zip(words.rsplit("; ", 1), here_of(words).rsplit("; ", 1), strict=True)
        return cls(level, subject, *(Said(english, here) for english, here in parts))


class Shares(NamedTuple):
    """Tokens a character of the training rows, by category in report order and of all; None where there is no text."""

    by_category: dict[str, float | None]
    all: float | None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> Line:
    """The tokens that begin, end and fill rows."""
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    tokens = one_after_another(
        said("doctor.no_token", name=name.upper())
        if number is None
        else f"{name.upper()} {getattr(tokenizer, f'{name}_token')} {number}"
        for name, number in ids.items()
    )
    put = bos_ids(tokenizer)
    found = said("doctor.bos_put", tokens=tokens) if put else said("doctor.bos_not_put", tokens=tokens)
    if ids["eos"] is None:
        return Line("red", "special tokens", found, said("doctor.no_end"))
    harmless = [said("doctor.pad_is_end")] if ids["pad"] == ids["eos"] else []
    return Line("green", "special tokens", sentences([found, *harmless]))


def end_of_text(labels: Iterable[Sequence[int]], eos_id: int, once: bool = True) -> Line:
    """Whether rows teach the model to stop: `labels` of the training rows, of which the first has no prediction.

    `once`: whether a row has one end; not where the ends of several turns are learned.
    """
    rows = ended = several = 0
    for row in labels:
        rows += 1
        ended += row[-1] == eos_id
        several += once and sum(label == eos_id for label in row[1:]) > 1
    found = said("doctor.ended", ended=Count(ended), rows=Count(rows))
    if ended == rows and not several:
        return Line("green", "end of text", said("doctor.no_other_end", ended=found) if once else found)
    cut = [said("doctor.cut_before", rows=Count(rows - ended))] if ended < rows else []
    doubled = [said("doctor.several_ends", rows=Count(several))] if several else []
    found = sentences([found, *cut, *doubled])
    remedy = said("doctor.cut_less") if ended < rows else said("doctor.look_at_data")
    if not ended:
        return Line("red", "end of text", said("doctor.never_stops", found=found), remedy)
    return Line("yellow" if ended < END_SHARE * rows or several else "green", "end of text", found, remedy)


def characters(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Line:
    """Which characters survive encoding and decoding; the newline must, where the rendered `prompt` has one."""
    if "\n" in prompt and not _survives(tokenizer, "\n"):
        found = said("doctor.newline_lost", sample="前⏎後", back=_flat(_back(tokenizer, "前\n後")))
        return Line("red", "characters", found, said("doctor.without_newline"))
    names = dict(zip(PROBES, _probe_names(), strict=True))
    lost = [probe for probe in PROBES if not _survives(tokenizer, probe)]
    if not lost:
        return Line("green", "characters", said("doctor.unchanged", names=one_after_another(names.values())))
    backs = {probe: repr(_back(tokenizer, f"前{probe}後")[1:-1]) for probe in lost}
    examples = one_after_another(said("doctor.comes_back", name=names[probe], back=backs[probe]) for probe in lost)
    return Line("yellow", "characters", said("doctor.changed", examples=examples), said("doctor.not_in_answers"))


def _probe_names() -> tuple[str, ...]:
    """What the probes are called."""
    return (said("doctor.wide_letters"), said("doctor.wide_space"), said("doctor.narrow_kana"), *PROBES[3:])


def row_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Sequence[list[int]]) -> Line:
    """How many rows come back from the tokenizer unchanged; `texts` hold three texts a row, encoded in `ids`."""
    backs = tokenizer.batch_decode(list(ids), clean_up_tokenization_spaces=False)
    # A space in front is SentencePiece's own mark of a beginning, put there or taken away without harm.
    changed = [i for i, text in enumerate(texts) if backs[i].removeprefix(" ") != text.removeprefix(" ")]
    rows, changed_rows = len(texts) // 3, len({i // 3 for i in changed})
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    found = said("doctor.texts_back", same=Count(rows - changed_rows), rows=Count(rows))
    if unknown:
        found = said("doctor.unknown_tokens", found=found, tokens=Count(unknown))
    else:
        found = said("doctor.no_unknown", found=found)
    if not changed:
        return Line("yellow" if unknown else "green", "texts", found, said("doctor.see_characters") if unknown else "")
    before, after = _difference(texts[changed[0]], backs[changed[0]])
    found = said("doctor.text_changed", found=found, before=before, after=after)
    return Line("yellow", "texts", found, said("doctor.learned_changed"))


def tokens_per_character(categories: Sequence[str], texts: Sequence[str], ids: Sequence[list[int]]) -> Shares:
    """Tokens divided by characters: `categories`, `texts` and `ids` have one entry a text."""
    tokens, length = Counter[str](), Counter[str]()
    for category, words, row in zip(categories, texts, ids, strict=True):
        tokens[category] += len(row)
        length[category] += len(words)
    return Shares(
        {name: _ratio(tokens[name], length[name]) for name in category_order(Counter(categories))},
        _ratio(tokens.total(), length.total()),
    )


def _ratio(tokens: int, characters: int) -> float | None:
    return tokens / characters if characters else None


def efficiency(shares: Shares) -> Line:
    """Whether the tokenizer knows Japanese words, from `tokens_per_character`."""
    share = shares.all or 0.0
    found = said("doctor.efficient", share=f"{share:.2f}")
    if share <= TOKENS_PER_CHARACTER:
        return Line("green", "efficiency", found)
    return Line("yellow", "efficiency", said("doctor.in_bytes", found=found), said("doctor.compare"))


def length_line(lengths: Sequence[int], max_length: int, fates: Mapping[tuple[str, Fate], int]) -> Line:
    """Rows against `training.max_length`. What costs answers is a warning of `sft.plan.hazards`."""
    values = {"rows": Count(len(lengths)), "tokens": Count(max(lengths)), "limit": Count(max_length)}
    counts = Counter[Fate]()
    for (_, fate), count in fates.items():
        counts[fate] += count
    lost = {
        "context shortened": said("doctor.lose_context", rows=Count(counts["context shortened"])),
        "end cut off": said("doctor.lose_end", rows=Count(counts["end cut off"])),
        "dropped": said("doctor.rows_lost", rows=Count(counts["dropped"])),
    }
    shown = one_after_another(words for fate, words in lost.items() if counts[fate])  # type: ignore[index]
    return Line("green", "row lengths", sentences([said("doctor.longest", **values), shown or said("doctor.all_fit")]))


def show(console: Console, lines: Sequence[Line], shares: Mapping[str, Shares]) -> None:
    """Print the page, then the tokens a character of each tokenizer by category, then how many lines are not green."""
    console.width = min(console.width, PAGE_WIDTH)
    console.rule(text("doctor.title"))
    narrow = Column(no_wrap=True)
    page = Table.grid(Column(no_wrap=True, min_width=4), narrow, Column(overflow="fold"), padding=(0, 2, 0, 0))
    for line in lines:
        found = Text(visible(here_of(line.found)))
        if line.remedy:
            found.append(visible(f"\n→ {here_of(line.remedy)}"), style="bold" if line.level != "green" else "")
        page.add_row(Text(mark(line.level), style=f"bold {line.level}"), subject_word(line.subject), found)
    console.print(page)
    console.print("\n" + text("doctor.per_character"), highlight=False)
    table = Table(Column(text("rows.category"), no_wrap=True), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shares:
        shown = visible(Path(name).name if Path(name).exists() else name)
        table.add_column(Text(shown), justify="right", overflow="fold")
    columns = list(shares.values())
    rows = [(category_label(name), [column.by_category[name] for column in columns]) for name in columns[0].by_category]
    for label, values in [*rows, (text("rows.all"), [column.all for column in columns])]:
        table.add_row(Text(visible(label)), *("–" if value is None else f"{value:.2f}" for value in values))
    console.print(table)
    console.print(verdict(lines), highlight=False)


def verdict(lines: Sequence[Line]) -> str:
    """How many lines are of each level, and which are not green."""
    counts = []
    for level in LEVELS:
        subjects = [subject_word(line.subject) for line in lines if line.level == level]
        values = {"number": Count(len(subjects)), "mark": mark(level)}
        if subjects and level != "green":
            counts.append(said("doctor.lines_named", named=one_after_another(dict.fromkeys(subjects)), **values))
        else:
            counts.append(said("doctor.lines", **values))
    return one_after_another(counts).here


def mark(level: Level) -> str:
    """What a line begins with."""
    return {"red": text("doctor.stop"), "yellow": text("doctor.look"), "green": "ok"}[level]


def texts_of(rows: Dataset) -> tuple[list[str], list[str]]:
    """Categories and texts of instruction, input and output of each row, a row that comes again only once."""
    unique = {row.index: row for row in examples_of(rows)}.values()
    texts = [text for row in unique for text in (row.instruction, row.input, row.output)]
    return [row.category for row in unique for _ in range(3)], texts


def tokenizer_checks(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[Line]:
    """Whether rows can begin and end, and whether the rendered `prompt` and Japanese text survive the tokenizer."""
    return [special_tokens(tokenizer), characters(tokenizer, prompt)]


def export_check(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Dataset) -> Line:
    """Whether the run can be exported: its prompt as a chat template, which engines ask by, tried on some rows."""
    tried = [dataclasses.asdict(row) for row in itertools.islice(examples_of(rows), EXPORT_ROWS)]
    try:
        checked_chat_template(tokenizer, template, tried)
    except UserError as error:
        return Line("yellow", "export", said("doctor.no_export", error=str(error)), said("doctor.export_remedy"))
    return Line("green", "export", said("doctor.export", rows=Count(len(tried))))


def _survives(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    # Between others, since some tokenizers trim a text's ends.
    return _back(tokenizer, f"前{text}後").removeprefix(" ") == f"前{text}後"


def _back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return tokenizer.decode(encode_text(tokenizer, text), clean_up_tokenization_spaces=False)


def _difference(text: str, back: str) -> tuple[str, str]:
    """The surroundings of the first place at which two texts differ."""
    place = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    around = slice(max(0, place - 6), place + 6)
    return _flat(text[around]), _flat(back[around])


def _flat(text: str) -> str:
    return visible(text).replace("\n", "⏎")
