"""The prompt: one place that renders it for training, answering and evaluation."""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sft.prompt.turns import as_format, read_turns
from sft.system.errors import UserError
from sft.system.files import read_json, write_whole
from sft.system.yaml_text import read_yaml

if TYPE_CHECKING:  # these take seconds
    from transformers import PreTrainedTokenizerBase


FILE_NAME = "prompt_template.json"
ROLES = ("system", "user", "assistant")


class Prompt(str):
    """A rendered prompt. It knows which of its characters are special tokens of the template's own.

    `special_spans` holds their (start, end) in reading order; the same texts elsewhere are data. None for templates
    that have no special tokens and leave a BOS to the tokenizer. `learned_spans` are those of earlier answers, each
    with what ends its turn.
    """

    special_spans: tuple[tuple[int, int], ...] | None = None
    learned_spans: tuple[tuple[int, int], ...] = ()


class _Literal(NamedTuple):
    """A text of a template, and the (start, end) of the special tokens in it."""

    text: str
    spans: list[tuple[int, int]]


@functools.lru_cache(maxsize=64)
def _parsed(text: str, special_tokens: tuple[str, ...] | None) -> tuple[_Literal, list[tuple[str, _Literal]]]:
    """A format string: its text before the first field, and each field with the text behind it."""
    texts, fields = format_parts(text)
    pattern = re.compile("|".join(map(re.escape, sorted(special_tokens or (), key=len, reverse=True))))
    literals = [
        _Literal(literal, [found.span() for found in pattern.finditer(literal)] if special_tokens else [])
        for literal in texts
    ]
    return literals[0], list(zip(fields, literals[1:], strict=True))


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """A prompt's text: `{instruction}` and `{input}` are replaced, `{{` and `}}` are braces, the rest is kept.

    A trailing newline belongs to the prompt: the answer starts right after it.
    """

    name: str
    with_input: str
    without_input: str
    special_tokens: tuple[str, ...] | None = None
    """Texts of the template that are special tokens, of a chat model; None: a text only, no special tokens."""
    end: str | None = None
    """The special token that ends an answer; None: the tokenizer's own end-of-text token."""
    turn: str | None = None
    """An earlier question and its answer, {instruction} and {output}, up to the next question; None: the template
    takes single questions."""
    turn_end: str = ""
    """What of `turn` follows the answer and ends it."""
    system: str | None = None
    """What prompts with a system message begin with, up to the first question; None: the template takes none."""
    trimmed: tuple[str, ...] = ()
    """The roles whose messages lose white space at both ends."""

    def render(self, instruction: str, input: str = "", history: Sequence[tuple[str, str]] = ()) -> Prompt:
        """The prompt for one question; `input` is the context, "" where there is none.

        `history` holds the turns before as (role, content); what the template does not take of it is left out (see
        `sft.prompt.lost_turns`).
        """
        if "user" in self.trimmed and not input.strip():
            input = ""
        (text, spans), question = _parsed(self.with_input if input else self.without_input, self.special_tokens)
        values = {"instruction": instruction, "input": input}
        if "user" in self.trimmed:  # the message as a whole, which all fields of a question make up
            first, last = question[0][0], question[-1][0]
            values[first] = values[first].lstrip()
            values[last] = values[last].rstrip()
        pieces = [(field, values[field], literal) for field, literal in question]
        if history:
            start, earlier = self._earlier(history)
            (text, spans), pieces = start or _Literal(text, spans), [*earlier, *pieces]
        spans, learned = [*spans], []
        for field, value, literal in pieces:
            if field == "output":
                learned.append((len(text), len(text) + len(value) + len(self.turn_end)))
            text += value
            spans += [(len(text) + start, len(text) + end) for start, end in literal.spans]
            text += literal.text
        prompt = Prompt(text)
        prompt.special_spans = None if self.special_tokens is None else tuple(spans)
        prompt.learned_spans = tuple(learned)
        return prompt

    def _earlier(self, history: Sequence[tuple[str, str]]) -> tuple[_Literal | None, list[tuple[str, str, _Literal]]]:
        """What a prompt begins with, if not as usual, and its messages, each with its field and the text behind it."""
        start, pieces, messages = None, [], self.taken(history)
        if messages and messages[0][0] == "system":
            start, ((field, literal),) = _parsed(self.system or "", self.special_tokens)
            pieces.append((field, messages.pop(0)[1], literal))
        _, layout = _parsed(self.turn or "", self.special_tokens)
        for (field, literal), (_, content) in zip(itertools.cycle(layout), messages):
            pieces.append((field, content, literal))
        return start, pieces

    def taken(self, history: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """What the template takes of a history: the texts of all system messages as one, and the earlier turns."""
        system = "\n\n".join(self._content(role, text) for role, text in history if role == "system")
        turns = [(role, self._content(role, text)) for role, text in history if role != "system"]
        return [("system", system)] * bool(system and self.system) + turns * bool(self.turn)

    def _content(self, role: str, text: str) -> str:
        return text.strip() if role in self.trimmed else text

    def completion(self, output: str) -> str:
        """The answer's text as the template writes it."""
        return self._content("assistant", output)

    @property
    def sha256(self) -> str:
        """Hash of all but the name, to tell whether two runs used the same template."""
        parts = [self.with_input, self.without_input]
        if self.special_tokens is not None:
            parts += [*self.special_tokens, self.end or ""]
        if self.turn or self.system or self.trimmed:
            parts += [self.turn or "", self.turn_end, self.system or "", *self.trimmed]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write the template beside an adapter."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)
        write_whole(directory / FILE_NAME, text + "\n")

    @classmethod
    def load(cls, directory: Path) -> "PromptTemplate":
        """Read the template an adapter was trained with. Raises UserError when it is not there."""
        path = directory / FILE_NAME
        try:
            template = cls(**read_json(path))
            special = template.special_tokens
            if special is not None and not (isinstance(special, list) and all(special)):
                raise ValueError("special_tokens is not a list of texts")
            for text in (template.name, *(special or ()), template.end or ""):
                if not isinstance(text, str):
                    raise ValueError(f"{text!r:.80} is not text")
            checked_template(template.with_input, {"instruction", "input"})
            checked_template(template.without_input, {"instruction"})
            template._check_turns()
            special = None if special is None else tuple(special)
            return dataclasses.replace(template, special_tokens=special, trimmed=tuple(template.trimmed))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not a prompt template: {error}") from None

    def _check_turns(self) -> None:
        """Raise ValueError when what is said of conversations cannot be filled in."""
        if self.system is not None and len(format_parts(checked_template(self.system, {"system"}))[1]) != 1:
            raise ValueError("system holds {system} twice")
        if not isinstance(self.turn_end, str):
            raise ValueError(f"{self.turn_end!r:.80} is not text")
        if self.turn is not None:
            texts, fields = format_parts(checked_template(self.turn, {"instruction", "output"}))
            if texts[0] or fields != ["instruction", "output"] or not texts[2].startswith(self.turn_end):
                raise ValueError("turn is not {instruction}, a text, {output} and a text that begins with turn_end")
        if not isinstance(self.trimmed, list | tuple) or not all(role in ROLES for role in self.trimmed):
            raise ValueError("trimmed is not a list of roles")


def format_parts(text: str) -> tuple[list[str], list[str]]:
    """A format string's texts, before, between and behind its fields, and the fields."""
    texts, fields = [""], []
    for literal, field, _, _ in string.Formatter().parse(text):
        texts[-1] += literal
        if field is not None:
            fields.append(field)
            texts.append("")
    return texts, fields


def checked_template(text: str, wanted: set[str]) -> str:
    """`text` if it is a format string with exactly the fields `wanted`. Raises ValueError otherwise."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r:.80} is not text")
    names = " and ".join(f"{{{name}}}" for name in sorted(wanted))
    if "\0" in text:
        raise ValueError("holds a null character")
    try:
        parts = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces that are text") from None
    for field, specification, conversion in parts:
        if field not in wanted or specification or conversion:
            raise ValueError(f"{{{field}}} cannot be filled in; only {names}, and {{{{ }}}} for braces that are text")
    missing = wanted - {field for field, _, _ in parts}
    if missing:
        raise ValueError(f"must contain {names}")
    return text


_TEXTS = read_yaml(Path(__file__).with_name("templates.yaml"))
TEMPLATES = {name: PromptTemplate(name, **texts) for name, texts in _TEXTS.items()}
ALPACA_EN, ALPACA_JA = TEMPLATES["alpaca-en"], TEMPLATES["alpaca-ja"]


def template_from_config(template: Any, tokenizer: "PreTrainedTokenizerBase") -> PromptTemplate:
    """The template that a configuration names ("chat…": the tokenizer's), or writes out with both texts.

    Raises UserError when the tokenizer has no chat template, or one that does not fit.
    """
    return _text_template(template) or chat_template(tokenizer, template)


def as_named(template: Any) -> Any:
    """A configuration's template as YAML has it; one that is written out and is a named one's text, by that name."""
    return next((name for name, texts in _TEXTS.items() if template == texts), template)


def is_template(template: Any, name: str, sha256: str) -> bool:
    """Whether a configuration's template is the one of that name and hash; the tokenizer's own is known by its name."""
    text = _text_template(template)
    return text.sha256 == sha256 if text else template == name


def _text_template(template: Any) -> PromptTemplate | None:
    """A template that needs no tokenizer; None for the tokenizer's own."""
    if isinstance(template, str):
        return TEMPLATES.get(template)
    return PromptTemplate("custom", template.with_input, template.without_input)


CHAT_TEMPLATES = {
    "chat": "{instruction}\n\n{input}",
    "chat-context-first": "{input}\n\n{instruction}",
}
"""The ways to use the tokenizer's own chat template: the user's message that asks a question about a context."""

DATE = "26 Jul 2024"
"""The day that chat templates which write today's date are told: the one that Llama's fall back on."""


def with_fixed_date(jinja: str) -> str:
    """A chat template that is told DATE where it asks for today's: another date would be another prompt every day."""
    if "strftime_now" not in jinja:
        return jinja
    return f"{{%- macro strftime_now(format) -%}}{DATE}{{%- endmacro -%}}{jinja}"


def chat_template(tokenizer: "PreTrainedTokenizerBase", way: str = "chat") -> PromptTemplate:
    """The tokenizer's chat template: the user's message is the instruction, or with a context what `way` says.

    `way` is one of CHAT_TEMPLATES. Raises UserError when there is no chat template, or one that does not keep the
    message as it is.
    """
    name = f"prompt.template: {way}: {tokenizer.name_or_path}"
    if not tokenizer.chat_template:
        raise UserError(
            f"{name}: the tokenizer has no chat template; set prompt.template: {way.replace('chat', 'alpaca-ja')}"
        )
    # Marks that no template contains and no template trims.
    instruction, context, answer = "〔指示の場所〕", "〔文脈の場所〕", "〔応答の場所〕"

    dated = with_fixed_date(tokenizer.get_chat_template())

    def rendered(*contents: str, system: str = "", **options: Any) -> str:
        roles = itertools.cycle(("user", "assistant"))
        turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
        turns = [{"role": "system", "content": system}, *turns] if system else turns
        try:
            return str(tokenizer.apply_chat_template(turns, chat_template=dated, tokenize=False, **options))
        except Exception as error:  # a template raises what it likes
            raise UserError(f"{name}: the chat template fails: {' '.join(str(error).split())[:200]}") from None

    long = rendered(CHAT_TEMPLATES[way].format(instruction=instruction, input=context), add_generation_prompt=True)
    short = rendered(instruction, add_generation_prompt=True)
    conversation = rendered(instruction, answer)
    if [long.count(instruction), long.count(context), short.count(instruction)] != [1, 1, 1]:
        raise UserError(f"{name}: the chat template does not show a message exactly once; write a template out")
    begun = short.rstrip()
    between = conversation.removeprefix(begun).partition(answer)[0].strip()
    if not conversation.startswith(begun) or (between and short == rendered(instruction)):
        raise UserError(f"{name}: the chat template does not show where an answer begins; write a template out")
    specials = sorted({token.content for token in tokenizer.added_tokens_decoder.values() if token.special})
    end = _turn_end(tokenizer, specials, conversation.partition(answer)[2].lstrip(), name)
    eos = tokenizer.eos_token
    tokenizer.eos_token = end or eos  # as it is in training and afterwards
    changed = rendered(instruction, add_generation_prompt=True) != short
    turns = read_turns(rendered, short.split(instruction), specials)
    tokenizer.eos_token = eos
    if changed:
        raise UserError(f"{name}: the chat template writes the end-of-text token into the prompt; write a template out")
    with_input = as_format(long, instruction=instruction, input=context)
    without_input = as_format(short, instruction=instruction)
    written = (long, short, turns.turn or "", turns.system or "")
    present = tuple(token for token in specials if any(token in text for text in written))
    return PromptTemplate(way, with_input, without_input, present, end, *turns)


def _turn_end(tokenizer: "PreTrainedTokenizerBase", specials: list[str], text: str, name: str) -> str | None:
    """The special token that `text`, what follows an answer, begins with; None where it begins with a text."""
    ends = [token for token in specials if text.startswith(token)]
    if ends:
        return max(ends, key=len)
    for token in tokenizer.added_tokens_decoder.values():
        if token.content.strip() and text.startswith(token.content):
            raise UserError(
                f"{name}: {token.content}, which ends a turn, is not marked as special, so the same text in the data "
                "would end one, too; mark it in the tokenizer's files, or write a template out"
            )
    return None


@dataclasses.dataclass(frozen=True)
class FormattingFunction:
    """Makes prompt and completion of a row: what the trainer consumes as `formatting_func`.

    The completion is the bare answer: the end-of-text token is appended by id when it is encoded, so
    that the same text inside the data stays data.
    """

    template: PromptTemplate

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        prompt = self.template.render(row["instruction"], row["input"], history_of(row))
        return {"prompt": prompt, "completion": self.template.completion(row["output"])}


def history_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The earlier turns of a row as (role, content), whether it comes from a file of rows or is an `Example`'s fields.

    A row without the field has none.
    """
    turns = row.get("history") or ()
    return [(turn["role"], turn["content"]) if isinstance(turn, Mapping) else (turn[0], turn[1]) for turn in turns]
