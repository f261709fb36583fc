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
from sft.system.visible import counted, visible

EXPORT_ROWS = 100
"""Rows that the chat template of an export is tried on."""

EXPORT_REMEDY = "take another prompt.template or tokenizer, or use the adapter with this program alone"

Level = Literal["green", "yellow", "red"]
MARKS: dict[Level, str] = {"red": "STOP", "yellow": "look", "green": "ok"}
PAGE_WIDTH = 100

PROBES = {
    "full-width letters and digits": "Ａｚ０９",
    "the full-width space": "　",
    "half-width katakana": "ｶﾞｷﾞ",
    "😀": "😀",
    "鱻": "鱻",
    "𠮷": "𠮷",
}
"""What Japanese tokenizers lose most often, by name; the newline, which the template needs, is looked at apart."""

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
        return cls(level, subject, *str(message).rsplit("; ", 1))


class Shares(NamedTuple):
    """Tokens a character of the training rows, by category in report order and of all; None where there is no text."""

    by_category: dict[str, float | None]
    all: float | None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> Line:
    """The tokens that begin, end and fill rows."""
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    named = [
        f"{name.upper()} {getattr(tokenizer, f'{name}_token')} {number}" if number is not None else f"no {name.upper()}"
        for name, number in ids.items()
    ]
    found = f"{', '.join(named)}; BOS is {'' if bos_ids(tokenizer) else 'not '}put before prompts"
    if ids["eos"] is None:
        return Line("red", "special tokens", found, "no answer could end: take a tokenizer with EOS (model.tokenizer)")
    if ids["pad"] == ids["eos"]:
        found += "; PAD is EOS, and harmless: labels and attention are masked by position, never by id"
    return Line("green", "special tokens", found)


def end_of_text(labels: Iterable[Sequence[int]], eos_id: int, once: bool = True) -> Line:
    """Whether rows teach the model to stop: `labels` of the training rows, of which the first has no prediction.

    `once`: whether a row has one end; not where the ends of several turns are learned.
    """
    rows = ended = several = 0
    for row in labels:
        rows += 1
        ended += row[-1] == eos_id
        several += once and sum(label == eos_id for label in row[1:]) > 1
    found = f"{ended:,} of {_rows(rows)} end{'s' * (rows == 1)} in a supervised EOS"
    if ended == rows and not several:
        return Line("green", "end of text", f"{found}, and have no other" if once else found)
    if ended < rows:
        found += f"; {rows - ended:,} cut off before it"
    if several:
        found += f"; {several:,} supervise more than one"
    remedy = "set data.truncation=context or a larger training.max_length" if ended < rows else "look at the data"
    if not ended:
        return Line("red", "end of text", f"{found}: the model would never learn to stop", remedy)
    return Line("yellow" if ended < END_SHARE * rows or several else "green", "end of text", found, remedy)


def characters(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Line:
    """Which characters survive encoding and decoding; the newline must, where the rendered `prompt` has one."""
    if "\n" in prompt and not _survives(tokenizer, "\n"):
        back = _flat(_back(tokenizer, "前\n後"))
        found = f"the newline is lost (前⏎後 comes back as {back}), which the prompt template needs"
        remedy = "write a prompt.template without newlines, or take another tokenizer (model.tokenizer)"
        return Line("red", "characters", found, remedy)
    lost = [name for name, text in PROBES.items() if not _survives(tokenizer, text)]
    if not lost:
        return Line("green", "characters", f"the newline, {', '.join(PROBES)} come back unchanged")
    examples = ", ".join(f"{name} (as {_back(tokenizer, f'前{PROBES[name]}後')[1:-1]!r})" for name in lost)
    found = f"changed by encoding and decoding: {examples}"
    return Line("yellow", "characters", found, "answers cannot hold these as they are")


def row_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Sequence[list[int]]) -> Line:
    """How many rows come back from the tokenizer unchanged; `texts` hold three texts a row, encoded in `ids`."""
    backs = tokenizer.batch_decode(list(ids), clean_up_tokenization_spaces=False)
    # A space in front is SentencePiece's own mark of a beginning, put there or taken away without harm.
    changed = [i for i, text in enumerate(texts) if backs[i].removeprefix(" ") != text.removeprefix(" ")]
    rows, changed_rows = len(texts) // 3, len({i // 3 for i in changed})
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    found = f"{rows - changed_rows:,} of {_rows(rows)} come back from the tokenizer unchanged"
    found += f"; {counted(unknown, 'unknown token')} (UNK)" if unknown else "; no unknown token (UNK)"
    if not changed:
        return Line("yellow" if unknown else "green", "texts", found, "see the characters above" if unknown else "")
    before, after = _difference(texts[changed[0]], backs[changed[0]])
    return Line("yellow", "texts", f"{found}; for example …{before}… as …{after}…", "such texts are learned as changed")


def tokens_per_character(categories: Sequence[str], texts: Sequence[str], ids: Sequence[list[int]]) -> Shares:
    """Tokens divided by characters: `categories`, `texts` and `ids` have one entry a text."""
    tokens, length = Counter[str](), Counter[str]()
    for category, text, row in zip(categories, texts, ids, strict=True):
        tokens[category] += len(row)
        length[category] += len(text)
    return Shares(
        {name: _ratio(tokens[name], length[name]) for name in category_order(Counter(categories))},
        _ratio(tokens.total(), length.total()),
    )


def _ratio(tokens: int, characters: int) -> float | None:
    return tokens / characters if characters else None


def efficiency(shares: Shares) -> Line:
    """Whether the tokenizer knows Japanese words, from `tokens_per_character`."""
    share = shares.all or 0.0
    found = f"{share:.2f} tokens a character"
    if share <= TOKENS_PER_CHARACTER:
        return Line("green", "efficiency", found)
    found += ": the tokenizer spells Japanese in bytes, so rows are long and training is slow"
    return Line("yellow", "efficiency", found, "compare others with --compare")


def length_line(lengths: Sequence[int], max_length: int, fates: Mapping[tuple[str, Fate], int]) -> Line:
    """Rows against `training.max_length`. What costs answers is a warning of `sft.plan.hazards`."""
    longest = counted(max(lengths), "token")
    found = f"the longest of {_rows(len(lengths))} has {longest} (training.max_length {max_length:,})"
    words: dict[Fate, str] = {"context shortened": "lose context", "end cut off": "lose their end", "dropped": "lost"}
    counts = {word: sum(count for (_, found), count in fates.items() if found == fate) for fate, word in words.items()}
    lost = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return Line("green", "row lengths", f"{found}; {lost or 'all fit'}")


def show(console: Console, lines: Sequence[Line], shares: Mapping[str, Shares]) -> None:
    """Print the page, then the tokens a character of each tokenizer by category, then how many lines are not green."""
    console.width = min(console.width, PAGE_WIDTH)
    console.rule("doctor")
    page = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for line in lines:
        text = Text(visible(line.found))
        if line.remedy:
            text.append(visible(f"\n→ {line.remedy}"), style="bold" if line.level != "green" else "")
        page.add_row(Text(f"{MARKS[line.level]:<4}", style=f"bold {line.level}"), line.subject, text)
    console.print(page)
    console.print("\ntokens per character of the training rows:", highlight=False)
    table = Table(Column("category", no_wrap=True), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shares:
        shown = visible(Path(name).name if Path(name).exists() else name)
        table.add_column(Text(shown), justify="right", overflow="fold")
    columns = list(shares.values())
    rows = [(category_label(name), [column.by_category[name] for column in columns]) for name in columns[0].by_category]
    for label, values in [*rows, ("all", [column.all for column in columns])]:
        table.add_row(Text(visible(label)), *("–" if value is None else f"{value:.2f}" for value in values))
    console.print(table)
    verdict = []
    for level, mark in MARKS.items():
        named = [line.subject for line in lines if line.level == level]
        which = f" ({', '.join(dict.fromkeys(named))})" if named and level != "green" else ""
        verdict.append(f"{len(named)} {mark}{which}")
    console.print(", ".join(verdict), highlight=False)


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
        return Line("yellow", "export", f"the run could not be exported for other programs: {error}", EXPORT_REMEDY)
    return Line("green", "export", f"as a chat template the prompt gives the training's tokens ({_rows(len(tried))})")


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


def _rows(count: int) -> str:
    return counted(count, "training row")
