"""The prompt as a chat template: one user message in, exactly the training prompt out, for engines that take messages.

A question is the user's message. A question with a context is one message, too: instruction, separator, context, where
the separator is what the prompt itself has between the two (alpaca-ja: a blank line, `### 入力:`, a new line). Anything
that can send a message can send that, and the message then stands in the prompt as it is. A run with `prompt.template:
chat` was trained with its tokenizer's own chat template, and keeps it.
"""

import json
import string
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from sft.prompt.encode import bos_ids, encode_prompt
from sft.prompt.template import PromptTemplate, format_parts, history_of, with_fixed_date
from sft.system.errors import UserError

REFUSAL = "This model answers single questions: send one message, from the user; no system message, no history."


def user_message(template: PromptTemplate, instruction: str, context: str = "") -> str:
    """The message that asks `instruction` about `context` ("" where there is none)."""
    if not context:
        return instruction
    values = {"instruction": instruction, "input": context}
    (_, between, _), fields = _parts(template)
    return between.join(values[field] for field in fields)


def separator(template: PromptTemplate) -> str:
    """What tells instruction and context apart in a message."""
    return _parts(template)[0][1]


def as_chat_template(template: PromptTemplate, starts_with_bos: bool) -> str:
    """The template in Jinja, of constructs that every engine's Jinja has. Raises UserError when it cannot be written.

    `starts_with_bos`: whether training prompts begin with the BOS token, which engines leave to the chat template.
    """
    (before, between, behind), _ = _parts(template)
    (start, end), _ = format_parts(template.without_input)
    if not between.strip():
        raise _unwritable(template)
    texts = {"refusal": REFUSAL, "between": between, "before": before, "behind": behind, "start": start, "end": end}
    # Of JSON's escapes only those of quotes, backslashes and white space occur in a prompt, and Jinja has the same.
    literals = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    bos = "{{- bos_token -}}\n" if starts_with_bos else ""
    jinja = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    return string.Template(jinja).substitute(literals, bos=bos)


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Iterable[Mapping[str, str]]
) -> None:
    """Give the tokenizer the chat template unless it was trained with its own, and check it.

    `rows` have fields instruction and input, and may have history.

    Raises UserError when the template fails, or a row's message does not become the training prompt, in text and ids.
    """
    if template.special_tokens is None:
        tokenizer.chat_template = as_chat_template(template, bool(bos_ids(tokenizer)))
        start = tokenizer.bos_token if bos_ids(tokenizer) else ""
    else:
        start = ""  # the tokenizer's own chat template brings its BOS along
        tokenizer.chat_template = with_fixed_date(tokenizer.get_chat_template())
    special = set(tokenizer.all_special_tokens)
    for row in rows:
        history = template.taken(history_of(row))
        prompt = template.render(row["instruction"], row["input"], history)
        question = user_message(template, row["instruction"], row["input"])
        messages = [{"role": role, "content": text} for role, text in (*history, ("user", question))]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
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
