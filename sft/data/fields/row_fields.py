"""What a row says, by field: in columns of their own, in messages, or in a text with a prompt in it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sft.data.fields.cells import is_empty
from sft.data.fields.conversations import conversation, earlier_turns
from sft.data.fields.prompts_inside import holds_prompt, taken_apart
from sft.data.fields.schemas import Schema, plain
from sft.data.files.raw import BadRow


class _Said(NamedTuple):
    """The question and its answer as they are found in one place; `history` are [role, content] there."""

    instruction: Any
    output: Any
    input: Any = None
    history: Sequence[list[str]] = ()


def fields_of(row: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """What a row says, by field, as the file has it; `history` is a list of [role, content]. Raises BadRow.

    A context, earlier turns and a system message may stand in columns of their own, whatever the question stands in.
    """
    said = _said(row, schema)
    fields = {field: schema.value(row, field) for field in ("index", "category", "answers", "input", "system")}
    if said.input and not is_empty(fields["input"]) and fields["input"] != said.input:
        raise BadRow(f"{schema.spelt('input')} and the prompt hold two contexts")
    if said.input:
        fields["input"] = said.input
    turns = earlier_turns(schema.value(row, "history"), schema.asks)
    if turns and said.history:
        raise BadRow("earlier messages beside a column of them")
    return fields | {"instruction": said.instruction, "output": said.output, "history": turns or list(said.history)}


def _said(row: Mapping[str, Any], schema: Schema) -> _Said:
    if "messages" in schema.columns:
        return _in_messages(schema.value(row, "messages"), schema.asks)
    if "text" in schema.columns:
        text = schema.value(row, "text")
        if not holds_prompt(text):
            raise BadRow(f"{schema.spelt('text')} holds no prompt of alpaca's templates")
        return _in_text(text)
    prompt, output = schema.value(row, "instruction"), schema.value(row, "output")
    answer = output if isinstance(output, list) else [{"role": "assistant", "content": output}]
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
        return _in_messages([*prompt, *answer], schema.asks)
    if isinstance(output, list) and len(output) == 1 and isinstance(output[0], dict):
        return _in_messages([{"role": "user", "content": prompt}, *output], schema.asks)
    rendered = plain(schema.spelt("instruction")) == "prompt" and holds_prompt(prompt)
    if rendered and (isinstance(output, str) or schema.asks):
        return _in_text(prompt + (output or ""))
    return _Said(prompt, output)


def _in_messages(value: Any, asks: bool) -> _Said:
    found = conversation(value, asks)
    return _Said(found.instruction, found.output, history=found.history)


def _in_text(text: str) -> _Said:
    system, instruction, context, output = taken_apart(text)
    return _Said(instruction, output, context, [["system", system]] if system else [])
