"""The prompt: one place that renders it for training, answering and evaluation."""

import dataclasses
import hashlib
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.system.errors import UserError
from sft.system.files import read_json, write_whole
from sft.system.yaml_text import read_yaml

if TYPE_CHECKING:  # these take seconds
    from transformers import PreTrainedTokenizerBase


FILE_NAME = "prompt_template.json"


class Prompt(str):
    """A rendered prompt. It knows which of its characters are special tokens of the template's own.

    `special_spans` holds their (start, end) in reading order; the same texts elsewhere are data. None for templates
    that have no special tokens and leave a BOS to the tokenizer.
    """

    special_spans: tuple[tuple[int, int], ...] | None = None


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

    def render(self, instruction: str, input: str = "") -> Prompt:
        """The prompt for one question; `input` is the context, "" where there is none."""
        values = {"instruction": instruction, "input": input}
        specials = re.compile("|".join(map(re.escape, sorted(self.special_tokens or (), key=len, reverse=True))))
        text, spans = "", []
        for literal, field, _, _ in string.Formatter().parse(self.with_input if input else self.without_input):
            if self.special_tokens:
                spans += [(len(text) + found.start(), len(text) + found.end()) for found in specials.finditer(literal)]
            text += literal + (values[field] if field else "")
        prompt = Prompt(text)
        prompt.special_spans = None if self.special_tokens is None else tuple(spans)
        return prompt

    @property
    def sha256(self) -> str:
        """Hash of all but the name, to tell whether two runs used the same template."""
        parts = [self.with_input, self.without_input]
        if self.special_tokens is not None:
            parts += [*self.special_tokens, self.end or ""]
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
            return dataclasses.replace(template, special_tokens=None if special is None else tuple(special))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not a prompt template: {error}") from None


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
    """The template that a configuration names ("chat": the tokenizer's), or writes out with both texts.

    Raises UserError when the tokenizer has no chat template, or one that does not fit.
    """
    if template == "chat":
        return chat_template(tokenizer)
    if isinstance(template, str):
        return TEMPLATES[template]
    return PromptTemplate("custom", template.with_input, template.without_input)


DATE = "26 Jul 2024"
"""The day that chat templates which write today's date are told: the one that Llama's fall back on."""


def with_fixed_date(jinja: str) -> str:
    """A chat template that is told DATE where it asks for today's: another date would be another prompt every day."""
    if "strftime_now" not in jinja:
        return jinja
    return f"{{%- macro strftime_now(format) -%}}{DATE}{{%- endmacro -%}}{jinja}"


def chat_template(tokenizer: "PreTrainedTokenizerBase") -> PromptTemplate:
    """The tokenizer's chat template for one user message: the instruction, and below it the context if there is one.

    Raises UserError when there is none, or when it does not keep the message as it is.
    """
    name = f"prompt.template: chat: {tokenizer.name_or_path}"
    if not tokenizer.chat_template:
        raise UserError(f"{name}: the tokenizer has no chat template; set prompt.template: alpaca-ja")
    # Marks that no template contains and no template trims.
    instruction, context, answer = "〔指示の場所〕", "〔文脈の場所〕", "〔応答の場所〕"

    dated = with_fixed_date(tokenizer.get_chat_template())

    def rendered(*contents: str, **options: Any) -> str:
        turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), contents, strict=False)]
        try:
            return str(tokenizer.apply_chat_template(turns, chat_template=dated, tokenize=False, **options))
        except Exception as error:  # a template raises what it likes
            raise UserError(f"{name}: the chat template fails: {' '.join(str(error).split())[:200]}") from None

    long = rendered(f"{instruction}\n\n{context}", add_generation_prompt=True)
    short = rendered(instruction, add_generation_prompt=True)
    conversation = rendered(instruction, answer)
    if [long.count(instruction), long.count(context), short.count(instruction)] != [1, 1, 1]:
        raise UserError(f"{name}: the chat template does not show a message exactly once; write a template out")
    begun = short.rstrip()
    between = conversation.removeprefix(begun).partition(answer)[0].strip()
    if not conversation.startswith(begun) or (between and short == rendered(instruction)):
        raise UserError(f"{name}: the chat template does not show where an answer begins; write a template out")
    specials = sorted({token.content for token in tokenizer.added_tokens_decoder.values() if token.special})
    present = tuple(token for token in specials if token in long or token in short)
    end = _turn_end(tokenizer, specials, conversation.partition(answer)[2].lstrip(), name)
    eos = tokenizer.eos_token
    tokenizer.eos_token = end or eos  # as it is in training and afterwards
    changed = rendered(instruction, add_generation_prompt=True) != short
    tokenizer.eos_token = eos
    if changed:
        raise UserError(f"{name}: the chat template writes the end-of-text token into the prompt; write a template out")
    with_input, without_input = (_as_format(text, instruction, context) for text in (long, short))
    return PromptTemplate("chat", with_input, without_input, present, end)


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


def _as_format(text: str, instruction: str, context: str) -> str:
    escaped = text.replace("{", "{{").replace("}", "}}")
    return escaped.replace(instruction, "{instruction}").replace(context, "{input}")


@dataclasses.dataclass(frozen=True)
class FormattingFunction:
    """Makes prompt and completion of a row: what the trainer consumes as `formatting_func`.

    The completion is the bare answer: the end-of-text token is appended by id when it is encoded, so
    that the same text inside the data stays data.
    """

    template: PromptTemplate

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        return {"prompt": self.template.render(row["instruction"], row["input"]), "completion": row["output"]}
