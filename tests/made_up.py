"""Rows and answers made up for tests: eight categories, Japanese text, and one answer that attacks its reader."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset

from eval.predictions import Prediction
from sft.data.records import CATEGORIES, CONTEXT, Example
from sft.data.rows import write_rows
from sft.system.files import file_sha256

HOSTILE = "````\n# 見出し\n<script>alert(1)</script>\x1b[2J"
GENERATION = {"repetition_penalty": 1.2, "repetition_penalty_scope": "generated", "temperature": 0.7}


def signed(run: Path) -> Path:
    """The run, its manifest saying of every file in its adapter, planted or changed, that the training wrote it."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["learned"] = {path.name: file_sha256(path) for path in (run / "adapter").iterdir() if path.is_file()}
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run


def on_disk(examples: Iterable[Example]) -> Dataset:
    """The examples as rows on disk."""
    return write_rows(map(dataclasses.asdict, examples))


def rows(each: int = 4) -> Iterator[Example]:
    for category in CATEGORIES:
        for number in range(each):
            context = (
                f"{category}の文脈{number}。東京{number}は1981年7月に生まれた。" * 20 if category in CONTEXT else ""
            )
            output = f"東京{number}です。1981年。"
            yield Example(f"{category}-{number}", "首都はどこですか？", context, output, category)


def answers(system: str, quality: int = 2, settings: dict | None = None, each: int = 4) -> list[Prediction]:
    """`quality` of every four rows are answered as the reference, one with an attack, the others wrongly."""
    found = []
    for number, row in enumerate(rows(each)):
        kind = number % 4
        text = HOSTILE if kind == 3 else row.output if kind < quality else "東京かもしれない"
        found.append(
            Prediction(
                system, row, "質問", text, "eos" if kind else "length", 9, 4, settings or GENERATION,
                reference_nll=9.0, reference_nll_without_context=12.0 if row.input else None,
                reference_tokens_in_prompt=0.2 + 0.1 * kind + 0.3 * bool(row.input), training_overlap=kind,
            )
        )  # fmt: skip
    return found
