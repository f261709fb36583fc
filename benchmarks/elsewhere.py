"""LLaMA-Factory measured in a Python of its own, whose libraries do not go together with ours."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.trainers import Work
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.system.errors import UserError

LLAMA_FACTORY = "llama-factory"
ENVIRONMENT = Path("scratch/llama-factory")


def check_python() -> None:
    """Raise UserError where LLaMA-Factory's environment is not there."""
    installed = ENVIRONMENT / ".installed"  # written last
    if not installed.exists():
        raise UserError(f"{LLAMA_FACTORY}: its environment is not there, or not whole: make {installed}")


def measure_elsewhere(work: Work, directory: Path) -> dict[str, float]:
    """What `benchmarks.training.measure` finds, of LLaMA-Factory: it is given model, adapter and rows as files in
    `directory`."""
    write(work, directory)
    words = [ENVIRONMENT / "bin/python", "-m", "benchmarks.llama_factory", directory, work.arguments.max_length]
    quiet = os.environ | {"LLAMAFACTORY_VERBOSITY": "WARN"}
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def write(work: Work, directory: Path) -> None:
    """The files that `benchmarks.llama_factory` reads."""
    work.model.save_pretrained(directory / "adapter")
    work.model.unload().save_pretrained(directory / "model")
    work.tokenizer.save_pretrained(directory / "model")
    (directory / "rows.json").write_text(json.dumps([_row(row) for row in work.encoded]), encoding="utf-8")


def _row(row: dict[str, Any]) -> dict[str, list[int]]:
    """A row that others may put behind another one, from whose end its first token would be learned."""
    return {"input_ids": row["input_ids"], "labels": [IGNORE_INDEX, *row["labels"][1:]]}
