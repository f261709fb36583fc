"""A run's directory: who may write to it, what is recorded in it, and which run is the newest."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.errors import UserError
from sft.records import Example
from sft.split import Split

if TYPE_CHECKING:  # a run can be looked at without waiting for torch
    from transformers import PreTrainedTokenizerBase

PACKAGES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "safetensors",
)  # fmt: skip
RUNS = Path("runs")


def prepare_directory(run: Path, resume: bool, force: bool) -> None:
    """Make an empty run directory, or keep one to resume. Raises UserError when that would lose a run."""
    if resume and force:
        raise UserError("--resume keeps an existing run and --force replaces it: give one of them")
    if resume:
        if not (run / "manifest.json").is_file():
            raise UserError(f"{run}: there is no run to resume; start it without --resume")
        if read_manifest(run)["status"] == "finished":
            raise UserError(f"{run}: this run has finished; --force trains it again from the start")
        return
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        if not force:
            raise UserError(f"{run}: exists already; --resume continues it, --force replaces it")
        if not (run / "manifest.json").is_file():
            raise UserError(f"{run}: is not a run of this program, so --force does not replace it; move it away")
        shutil.rmtree(run)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there complete or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json`: what is needed to tell what this run is, and to do it again."""
    write_text(run / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def read_manifest(run: Path) -> dict[str, Any]:
    """Read a run's manifest. Raises UserError when there is none."""
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: not a run directory ({error}); train one first") from None
    return manifest


def newest_finished_run(runs: Path = RUNS) -> Path:
    """The run that finished last. Raises UserError when none has."""
    finished = []
    for path in runs.glob("*/manifest.json"):
        manifest = read_manifest(path.parent)
        if manifest.get("status") == "finished":
            finished.append((manifest["finished"], path.parent))
    if not finished:
        raise UserError(f"{runs}: no finished run here; train one: accelerate launch train_sft.py configs/calm7b.yaml")
    return max(finished)[1]


def require_finished(run: Path) -> dict[str, Any]:
    """The manifest of a run whose training has finished. Raises UserError for any other."""
    manifest = read_manifest(run)
    if manifest.get("status") != "finished":
        raise UserError(f"{run}: the training has not finished; continue it with --resume")
    return manifest


def check_resumable(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise UserError, naming each difference, when a run begun as `old` cannot go on as `new`."""
    differences = [
        f"{key} was {old['identity'].get(key)}, is {value}"
        for key, value in new["identity"].items()
        if old["identity"].get(key) != value
    ]
    if differences:
        raise UserError("cannot resume: " + "; ".join(differences))


def write_split(run: Path, split: Split) -> None:
    """Record which row, by index, is on which side."""
    sides = {name: [example.index for example in side] for name, side in split._asdict().items()}
    write_text(run / "split.json", json.dumps(sides, ensure_ascii=False) + "\n")


def read_side(run: Path, side: str, examples: list[Example]) -> list[Example]:
    """The rows of one side ("train", "validation" or "test") of a run's split, in its order."""
    by_index = {example.index: example for example in examples}
    indices = json.loads((run / "split.json").read_text(encoding="utf-8"))[side]
    missing = [index for index in indices if index not in by_index]
    if missing:
        raise UserError(f"{run}: {len(missing)} rows of its {side} side are not in the data any more ({missing[0]}, …)")
    return [by_index[index] for index in indices]


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash of the vocabulary and the special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.special_tokens_map.items()))]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def environment() -> dict[str, Any]:
    """Versions of Python and the libraries, the machine, and this project's git commit (None outside git)."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "git_commit": git.stdout.strip() or None if git.returncode == 0 else None,
    }


def now() -> str:
    """The present moment in UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
