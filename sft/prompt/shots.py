"""Prompts that show examples first (few-shot), and the sentence that asks for a short answer.

A chat template gets the examples as earlier turns: each question a message of the user, its answer one of the
assistant. Other templates get them as they were trained: a filled template with its answer, an empty line, the next,
and last the template that is to be answered. Nothing tells the model where an example ends but the template itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sft.prompt.chat_template import user_message
from sft.prompt.template import Prompt, PromptTemplate
from sft.system.errors import UserError

BRIEFLY = "答えだけを短く書いてください。"
"""What `eval.brief` puts below the question."""


class Shot(NamedTuple):
    """An example in a prompt: a question, its context ("" where there is none) and its answer."""

    instruction: str
    input: str
    output: str


def briefly(instruction: str) -> str:
    """The question, with the sentence that asks for a short answer below it."""
    return f"{instruction}\n{BRIEFLY}"


def render_with_shots(
    template: PromptTemplate,
    shots: Sequence[Shot],
    instruction: str,
    input: str = "",
    history: Sequence[tuple[str, str]] = (),
) -> Prompt:
    """The prompt for one question behind the `shots`; without any, the template's own.

    `history` is as in `PromptTemplate.render`; its system messages go before the shots, its turns behind them. Raises
    UserError for a chat template that takes no earlier turns.
    """
    if not shots:
        return template.render(instruction, input, history)
    if template.special_tokens is None:
        blocks = [f"{template.render(shot.instruction, shot.input)}{shot.output}\n\n" for shot in shots]
        return Prompt("".join(blocks) + template.render(instruction, input, history))
    if template.turn is None:
        raise UserError(
            "eval.shots: this model's chat template takes no earlier turns to show examples as; set it to 0"
        )
    system = [turn for turn in history if turn[0] == "system"]
    shown = [
        turn
        for shot in shots
        for turn in (("user", user_message(template, shot.instruction, shot.input)), ("assistant", shot.output))
    ]
    return template.render(instruction, input, [*system, *shown, *(turn for turn in history if turn[0] != "system")])
