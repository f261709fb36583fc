"""The prompt as a chat template: one user message in, exactly the training prompt out, for engines that take messages.

A question is the user's message. A question with a context is one message, too: both, in the template's order, with its
separator between them, which is what the prompt itself has there (alpaca-ja: a blank line, `### 入力:`, a new line).
Anything that can send a message can send that, and the message then stands in the prompt as it is. Whatever else
clients send is rendered, too: system messages stand in front; earlier questions, each as a prompt of its own, before
the last one, with their answers; messages of one role in a row, and the parts of a message, are one text. A run with
`prompt.template: chat` was trained with its tokenizer's own chat template, and keeps it.
"""

import json
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.prompt.encode import bos_ids, encode_prompt
from sft.prompt.template import PromptTemplate, format_parts, history_of, with_fixed_date
from sft.system.errors import UserError


def user_message(template: PromptTemplate, instruction: str, context: str = "") -> str:
    """The message that asks `instruction` about `context` ("" where there is none)."""
    if not context:
        return instruction
    values = {"instruction": instruction, "input": context}
    (_, between, _), fields = _parts(template)
    return between.join(values[field] for field in fields)


def messages_of(template: PromptTemplate, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation that asks a row's question: what the template takes of its history, and the question."""
    question = user_message(template, row["instruction"], row["input"])
    turns = (*template.taken(history_of(row)), ("user", question))
    return [{"role": role, "content": text} for role, text in turns]


class Message(NamedTuple):
    """How a question about a context is written as one message."""

    first: str
    between: str
    second: str


def message_layout(template: PromptTemplate) -> Message:
    """Which of the fields, instruction and input, comes first in a message, and what tells it from the other."""
    (_, between, _), (first, second) = _parts(template)
    return Message(first, between, second)


class Parts(NamedTuple):
    """The texts of a prompt: around a question, and in front of, between and behind an instruction and a context."""

    start: str
    end: str
    before: str
    between: str
    behind: str


def as_parts(template: PromptTemplate) -> Parts:
    """What the prompts of a text template are made of. Raises UserError where that is not enough to write them."""
    (before, between, behind), _ = _parts(template)
    (start, end), _ = format_parts(template.without_input)
    if not between.strip():
        raise _unwritable(template)
    return Parts(start, end, before, between, behind)


def as_chat_template(template: PromptTemplate, starts_with_bos: bool, space: str = "") -> str:
    """The template in Jinja, of constructs that every engine's Jinja has. Raises UserError when it cannot be written.

    `starts_with_bos`: whether training prompts begin with the BOS token, which engines leave to the chat template;
    `space` is what follows it.
    """
    texts = as_parts(template)._asdict()
    # Of JSON's escapes only those of quotes, backslashes and white space occur in a prompt, and Jinja has the same.
    literals = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    opening = "{{- bos_token -}}\n" * starts_with_bos + f'{{{{- "{space}" -}}}}\n' * bool(space)
    jinja = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    return string.Template(jinja).substitute(literals, opening=opening)


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Give the tokenizer what `checked_chat_template` returns."""
    tokenizer.chat_template = checked_chat_template(tokenizer, template, rows)


def checked_chat_template(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Iterable[Mapping[str, Any]]
) -> str:
    """The prompt as a chat template; the tokenizer's own, if it was trained with that. The tokenizer stays as it is.

    `rows` have fields instruction and input, and may have history. Raises UserError when the template fails, or a
    row's message does not become the training prompt, in text and ids.
    """
    if template.special_tokens is None:
        bos = tokenizer.bos_token if bos_ids(tokenizer) else ""
        space = _space_behind(tokenizer, template, bos) if bos else ""
        start, jinja = bos + space, as_chat_template(template, bool(bos), space)
    else:
        start, jinja = "", with_fixed_date(tokenizer.get_chat_template())  # which brings its BOS along
    special = set(tokenizer.all_special_tokens)
    options = {"chat_template": jinja, "add_generation_prompt": True}
    for row in rows:
        prompt = template.render(row["instruction"], row["input"], template.taken(history_of(row)))
        messages = messages_of(template, row)
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
            ids = tokenizer.apply_chat_template(messages, return_dict=False, **options)
        except Exception as error:  # a template raises what it likes
            raise UserError(f"the chat template fails: {' '.join(str(error).split())[:200]}") from None
        if text != start + prompt:
            raise UserError(f"the chat template does not give the training prompt for {row['instruction']!r:.80}")
        # A special token's name in a question is split as text in training, and taken for the token by engines.
        # Earlier answers are encoded apart, as they were written, and not together with the line break in front.
        named = any(name in message["content"] for name in special for message in messages)
        if not (named or prompt.learned_spans) and ids != encode_prompt(tokenizer, prompt):
            raise UserError(
                f"the chat template gives other tokens than the training prompt for {row['instruction']!r:.80}, so "
                "engines would ask the model in a way it was not trained for; this tokenizer cannot be exported"
            )
    return jinja


def _space_behind(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, bos: str) -> str:
    """The space that training prompts have behind the BOS token where a chat template has to write it.

    Some SentencePiece tokenizers (Llama 2's) put a space in front of a text, and none behind a special token's name.
    """
    prompt = template.render("問")
    given = tokenizer(f"{bos} {prompt}", add_special_tokens=False)["input_ids"]
    plain = tokenizer(f"{bos}{prompt}", add_special_tokens=False)["input_ids"]
    trained = encode_prompt(tokenizer, prompt)
    return " " if given == trained != plain else ""


def _parts(template: PromptTemplate) -> tuple[list[str], list[str]]:
    """What stands before, between and behind the two fields of a prompt with a context, and the fields."""
    texts, fields = format_parts(template.with_input)
    if sorted(fields) != ["input", "instruction"] or format_parts(template.without_input)[1] != ["instruction"]:
        raise _unwritable(template)
    return texts, fields


def _unwritable(template: PromptTemplate) -> UserError:
    return UserError(
        f"prompt.template ({template.name}) cannot be written as a chat template: {{instruction}} and {{input}} "
        "must each stand in it once, with words between them that tell where the context begins"
    )
