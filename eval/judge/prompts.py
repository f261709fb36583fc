"""What a judge is asked: Japanese prompts (prompts.yaml) around texts that are kept apart from them. No torch here."""

from collections.abc import Mapping
from pathlib import Path

from eval.endpoint.server import Request
from sft.data.records import Example
from sft.system.files import text_sha256
from sft.system.visible import visible
from sft.system.yaml_text import read_yaml

WORDS = read_yaml(Path(__file__).with_name("prompts.yaml"))
SHA256 = text_sha256([Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8")])
"""Of the prompts: other prompts are another judge."""


def score_request(row: Example, answer: str, settings: Mapping[str, object]) -> Request:
    """The request to give an answer 1 to 5."""
    return _request("score", row, {"answer": answer}, settings)


def pair_request(row: Example, first: str, second: str, settings: Mapping[str, object]) -> Request:
    """The request to say which of two answers is better, the first shown as A."""
    return _request("pair", row, {"first": first, "second": second}, settings)


def _request(kind: str, row: Example, answers: Mapping[str, str], settings: Mapping[str, object]) -> Request:
    texts = {
        "history": "\n".join(f"{role}: {content}" for role, content in row.history),
        "question": row.instruction,
        "context": row.input,
        "reference": "\n".join(row.references),
    }
    given = {name: visible(text) for name, text in texts.items() if text}
    given |= {name: visible(text).strip() or WORDS["nothing"] for name, text in answers.items()}
    tag = _tag([*given.values()])
    materials = "\n\n".join(
        WORDS["material"].format(title=WORDS["titles"][name], tag=tag, text=text) for name, text in given.items()
    )
    prompt = WORDS[kind].format(tag=tag, materials=materials)
    return Request({"messages": [{"role": "user", "content": prompt}], **settings})


def _tag(texts: list[str]) -> str:
    """A mark that stands in none of the texts, and that none of their writers could foresee; the same each time."""
    tag = text_sha256(texts)[:8]
    while any(tag in text for text in texts):
        tag = text_sha256([tag])[:8]
    return tag
