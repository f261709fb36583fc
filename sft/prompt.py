"""The alpaca prompt: one place that renders it for training, answering and evaluation."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sft.errors import UserError

FILE_NAME = "prompt_template.json"


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """An alpaca-style template: `{instruction}` and `{input}` are replaced, the rest is kept to the letter.

    The trailing newline belongs to the prompt: the answer starts right after it.
    """

    name: str
    with_input: str
    without_input: str

    def render(self, instruction: str, input: str = "") -> str:
        """The prompt for one question; `input` is the context, "" where there is none."""
        if input:
            return self.with_input.format(instruction=instruction, input=input)
        return self.without_input.format(instruction=instruction)

    @property
    def sha256(self) -> str:
        """Hash of the template's texts, to tell whether two runs used the same one."""
        return hashlib.sha256(f"{self.with_input}\0{self.without_input}".encode()).hexdigest()

    def save(self, directory: Path) -> None:
        """Write the template beside an adapter."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)
        (directory / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "PromptTemplate":
        """Read the template an adapter was trained with. Raises UserError when it is not there."""
        path = directory / FILE_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: cannot read the adapter's prompt template: {error}") from None


# Stanford Alpaca's wording, and the Japanese one of Stability's harness (prompt version 0.3) and llm-jp.
ALPACA_EN = PromptTemplate(
    name="alpaca-en",
    with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    without_input=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
)
ALPACA_JA = PromptTemplate(
    name="alpaca-ja",
    with_input=(
        "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。\n\n"
        "### 指示:\n{instruction}\n\n### 入力:\n{input}\n\n### 応答:\n"
    ),
    without_input=(
        "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\n\n"
        "### 指示:\n{instruction}\n\n### 応答:\n"
    ),
)
TEMPLATES = {template.name: template for template in (ALPACA_EN, ALPACA_JA)}


def template_from_config(template: Any) -> PromptTemplate:
    """The template named in a configuration, or the one written out there with `with_input` and `without_input`."""
    if isinstance(template, str):
        return TEMPLATES[template]
    return PromptTemplate("custom", template.with_input, template.without_input)


FormattingFunction = Callable[[Mapping[str, Any]], dict[str, str]]


def formatting_function(template: PromptTemplate) -> FormattingFunction:
    """The row → prompt and completion function that the trainer consumes as `formatting_func`.

    The completion is the bare answer: the end-of-text token is appended by id when it is encoded, so
    that the same text inside the data stays data.
    """

    def format_row(row: Mapping[str, Any]) -> dict[str, str]:
        return {"prompt": template.render(row["instruction"], row["input"]), "completion": row["output"]}

    return format_row
