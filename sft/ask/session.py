"""A session: what one person asks one after another, and the commands that change what is asked. No terminal here."""

import copy
import dataclasses
import difflib
import json
import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sft.ask.question import settings_line, stream, warn_of
from sft.ask.settings import changed
from sft.ask.stopping import stopped_by_ctrl_c
from sft.data.files.encodings import encoding_of, opened
from sft.generation.answerer import Answerer
from sft.generation.settings import STOP_STRINGS
from sft.system.errors import UserError, say
from sft.system.files import check_not_learned, write_whole
from sft.system.texts import Count, text
from sft.system.visible import is_text, narrow

NOTHING = ("none", "なし")
"""What takes a context away."""
SHOWN_CELLS = 60
"""Of a name that is no file's: it may be a whole text."""


@dataclasses.dataclass
class Asked:
    """A question, what was before it, and its answer; `ended`: why no more came ("stopped": Ctrl-C)."""

    instruction: str
    context: str
    history: list[tuple[str, str]]
    answer: str = ""
    ended: str = "stopped"

    @property
    def whole(self) -> bool:
        """Whether the answer is there, and ended by itself: one in mid-sentence would teach to stop there."""
        return bool(self.answer) and self.ended not in ("stopped", "length")

    def row(self) -> dict[str, Any]:
        """The row that `data.path` reads."""
        row: dict[str, Any] = {"instruction": self.instruction, "input": self.context, "output": self.answer}
        if self.history:
            row["history"] = [{"role": role, "content": content} for role, content in self.history]
        return row


@dataclasses.dataclass
class Session:
    """Questions to one run, each with the context that holds until it is changed.

    `system` answers ("tuned", or "base" where nothing else is asked for); `overrides` are those that the run was loaded
    with; `paste` asks for a text of several lines.
    """

    answerer: Answerer
    system: str
    overrides: Sequence[str]
    paste: Callable[[str], str]
    context: str = ""
    both: bool = False
    asked: list[Asked] = dataclasses.field(default_factory=list)
    history: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """The earlier turns of this conversation, which only a chat template has a place for."""
    saved: Path | None = None
    set_here: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generation = self.answerer.generation
        self.warned: set[str] = set()

    @property
    def keeps_turns(self) -> bool:
        """Whether the model sees earlier turns."""
        return self.answerer.template.turn is not None

    def welcome(self) -> None:
        """Say what the model sees, and where help is."""
        note(text("ask.keeps_turns") if self.keeps_turns else text("ask.stands_alone"))
        note(text("ask.welcome"))

    def take(self, line: str) -> None:
        """Do what was typed: a command, or a question. Raises UserError for what cannot be done."""
        if not is_text(line):
            raise UserError("that is not text in the terminal's encoding")
        if (command := _command(line)) is None:
            self.ask(line.strip())
        elif command[0] in COMMANDS:
            COMMANDS[command[0]](self, command[1])
        else:
            near = difflib.get_close_matches(command[0], COMMANDS, n=1, cutoff=0.4)
            raise UserError(f"{command[0]}: no such command; {f'did you mean {near[0]}?' if near else 'see /help'}")

    def ask(self, instruction: str) -> None:
        """Answer a question with the session's context; it becomes a turn of the conversation."""
        if not instruction:
            return
        asked = Asked(instruction, self.context, list(self.history))
        self._answer(asked, self.system)
        self.asked.append(asked)
        if self.keeps_turns and asked.answer:  # an empty turn is in no row that is learned
            self.history += [("user", instruction), ("assistant", asked.answer)]
        if self.both and asked.ended != "stopped":
            self._answer(copy.copy(asked), "base")

    def _answer(self, asked: Asked, system: str) -> None:
        """Stream one system's answer, labelled where both are asked for, until it ends or Ctrl-C stops it."""
        settings, limit = self.generation, self.generation["max_new_tokens"]
        prompt = self.answerer.prompt(asked.instruction, asked.context, limit, asked.history)
        warn_of(self.answerer, prompt, asked.context, settings, self.warned)
        if self.both:
            note("── " + (text("ask.base") if system == "base" else text("ask.tuned")))
        with stopped_by_ctrl_c() as stopped, self.answerer.as_system(system):
            answer = stream(self.answerer, prompt, settings, lambda piece: print(piece, end="", flush=True), stopped)
        print("\n", flush=True)
        cut = answer.finish_reason == "length"
        asked.answer, asked.ended = answer.text, "stopped" if stopped() and cut else answer.finish_reason
        if asked.ended == "stopped":
            note(text("ask.stopped"))
        elif not answer.text:
            note(text("ask.empty"))
        elif cut:
            note(text("ask.cut_off", limit=Count(limit)))

    def set_context(self, name: str) -> None:
        """`/context`: pasted, read from a file, or taken away; several lines are the context itself."""
        if unicodedata.normalize("NFKC", name) in NOTHING:
            self.context = ""
            note(text("ask.no_context"))
            return
        is_file = name and "\n" not in name
        found = _file_text(name) if is_file else name or self.paste(text("ask.paste"))
        if not is_text(found):
            raise UserError("that is not text in the terminal's encoding")
        self.context = found.strip() or self.context
        note(text("ask.context", characters=Count(len(self.context))) if self.context else text("ask.no_context"))

    def show_both(self, _: str) -> None:
        """`/base`: from now on the base answers, too; the last question at once."""
        if self.system == "base":
            raise UserError("--base asks the base model alone; start without it to see both answers")
        self.both = not self.both
        note(text("ask.both") if self.both else text("ask.tuned_alone"))
        if self.both and self.asked:
            self._answer(copy.copy(self.asked[-1]), "base")

    def set(self, words: str) -> None:
        """`/set key value`: a generation setting, checked as the configuration is; without words, what is set."""
        key, *rest = re.split(r"[\s=＝]+", words.strip(), maxsplit=1)
        key = unicodedata.normalize("NFKC", key).removeprefix("generation.")
        value = "".join(rest)
        if key and not value:
            raise UserError(f"/set {key}: needs a value, such as /set temperature 0.2")
        if key:
            if key != STOP_STRINGS:  # a full-width colon is not a narrow one where an answer ends
                value = unicodedata.normalize("NFKC", value)
            set_here = self.set_here | {f"generation.{key}": value}
            words_ = [f"{name}={value}" for name, value in set_here.items()]
            self.generation = changed(self.answerer, [*self.overrides, *words_])
            self.set_here = set_here
        note(settings_line(self.generation))

    def again(self, _: str) -> None:
        """`/again`: the last question once more, with the context and the settings of now."""
        if not self.asked:
            raise UserError("/again: nothing was asked yet")
        last = self.asked.pop()
        kept = self.history
        if kept:  # else another conversation has begun
            self.history = last.history
        try:
            self.ask(last.instruction)
        except BaseException:
            self.asked.append(last)
            self.history = kept
            raise

    def new(self, _: str) -> None:
        """`/new`: the model sees nothing of what was said before."""
        self.history = []
        note(text("ask.new") if self.keeps_turns else text("ask.stands_alone"))

    def save(self, name: str) -> None:
        """`/save FILE`: the session's questions and answers, as rows that `data.path` reads."""
        path = _path(name)
        if path.suffix.lower() != ".jsonl":
            raise UserError("/save writes rows as JSON lines: give it a file whose name ends in .jsonl")
        rows = [asked.row() for asked in self.asked if asked.whole]
        if not self.asked:
            raise UserError("/save: nothing was asked yet")
        if not rows:
            longer = any(asked.ended == "length" for asked in self.asked)
            remedy = "/set max_new_tokens N and /again" if longer else "/again, or ask otherwise"
            raise UserError(f"/save: every answer so far was stopped, cut off or empty: {remedy}")
        check_not_learned(path)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_whole(path, lines, new=path.absolute() != self.saved)
        self.saved = path.absolute()
        note(text("ask.saved", path=path, rows=Count(len(rows)), left_out=Count(len(self.asked) - len(rows))))

    def help(self, _: str) -> None:
        """`/help`: the commands and keys."""
        print(text("ask.help"), file=sys.stderr, flush=True)


COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/context": Session.set_context, "/base": Session.show_both, "/set": Session.set, "/again": Session.again,
    "/new": Session.new, "/save": Session.save, "/help": Session.help,
}  # fmt: skip


def _command(line: str) -> tuple[str, str] | None:
    """The command that a line is, and what follows it; None for a question, which may begin with a path."""
    first, *rest = line.strip().split(maxsplit=1) or [""]
    name = unicodedata.normalize("NFKC", first).lower()
    return (name, "".join(rest)) if name[:1] == "/" and name[1:].isalpha() else None


def _path(name: str) -> Path:
    """A path as somebody typed it; `~` is their home."""
    return Path(os.path.expanduser(name))


def _file_text(name: str) -> str:
    """The text of a file, in any encoding that rows may have."""
    path, shown = _path(name), narrow(name, SHOWN_CELLS)
    if not os.path.isfile(path):  # False, too, of a line of text that is too long for a name
        raise UserError(f"/context: {shown}: no such file; /context alone takes pasted text, /context none no text")
    try:
        encoding = encoding_of(path)
        with opened(path) as file:
            return file.read().decode(encoding.codec).lstrip("\ufeff")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"/context: {shown}: cannot be read as text ({error}); save it as UTF-8") from None


def note(line: str) -> None:
    """Say something beside the answers."""
    say(line, sys.stderr)
