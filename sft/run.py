"""A run's directory: who may write to it, what is recorded in it, and which run is the newest."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import ValidationError

from sft.config.load import load_config
from sft.config.sections import Config
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import Rows
from sft.data.split import Split
from sft.manifest import Manifest
from sft.system.errors import UserError
from sft.system.files import check_inside, file_sha256, read_bytes, read_json, write_pieces, write_text

PACKAGES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "safetensors",
)  # fmt: skip
RUNS = Path("runs")


def check_directory(run: Path, resume: bool, force: bool) -> None:
    """Raise UserError when training into `run` would lose something or cannot go on; changes nothing."""
    if resume and force:
        raise UserError("--resume keeps an existing run and --force replaces it: give one of them")
    if resume:
        if not (run / "manifest.json").is_file():
            raise UserError(f"{run}: there is no run to resume; start it without --resume")
        if read_manifest(run)["status"] == "finished":
            raise UserError(f"{run}: this run has finished; --force trains it again from the start")
        return
    if holds_something(run):
        try:
            read_manifest(run)
        except UserError:
            raise UserError(
                f"{run}: exists and is not a run of this program, so it is not replaced; move it away"
            ) from None
        if not force:
            raise UserError(f"{run}: exists already; --resume continues it, --force replaces it")


def holds_something(path: Path) -> bool:
    """Whether there is anything to lose at `path`; empty directories, as a failed start leaves them, are nothing."""
    if not path.is_dir() or path.is_symlink():
        return path.exists() or path.is_symlink()
    return any(map(holds_something, path.iterdir()))


def lock_directory(run: Path) -> IO[str]:
    """Keep other processes from training into `run` as long as the file returned is open.

    Raises UserError when one does. The lock is beside the run, so that replacing the run does not lose it, and the
    system drops it however a process ends.
    """
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        lock = (run.parent / f".{run.name}.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise UserError(f"{run}: is being trained by process {lock.read().strip()}; wait for it or stop it") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def claim_directory(run: Path) -> None:
    """Make `run` an empty directory; a run that `check_directory` allowed to replace is removed at this moment."""
    try:
        if run.exists():
            old = run.with_name(f".{run.name}.replaced-{os.getpid()}")
            run.rename(old)
            shutil.rmtree(old)
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}") from None


def weights_directory(run: Path) -> Path:
    """What a finished run has learned, with its tokenizer and template: `adapter`, or `model` when all was trained."""
    model = run / "model"
    return model if model.is_dir() else run / "adapter"


def write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json`: what is needed to tell what this run is, and to do it again."""
    write_text(run / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def read_manifest(run: Path) -> dict[str, Any]:
    """Read a run's manifest. Raises UserError when there is none, or it is not one of ours."""
    try:
        manifest = read_json(run / "manifest.json")
    except UserError as error:
        raise UserError(f"{run}: not a run directory ({error}); train one first") from None
    try:
        Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{run / 'manifest.json'}: is not the manifest of a run ({place}: {first['msg']})") from None
    return dict(manifest)


def newest_finished_run(runs: Path = RUNS) -> Path:
    """The run that finished last. Raises UserError when none has."""
    finished = []
    for path in runs.glob("*/manifest.json"):
        try:
            manifest = read_manifest(path.parent)
        except UserError as error:
            print(f"warning: left out: {error}", file=sys.stderr)
            continue
        if manifest["status"] == "finished":
            finished.append((manifest["finished"], path.parent))
    if not finished:
        raise UserError(f"{runs}: no finished run here; train one: accelerate launch train_sft.py configs/calm7b.yaml")
    return max(finished)[1]


def require_finished(run: Path) -> dict[str, Any]:
    """The manifest of a run whose training has finished. Raises UserError for any other, and for links out of it."""
    check_inside(run)
    manifest = read_manifest(run)
    if manifest["status"] != "finished":
        raise UserError(f"{run}: the training has not finished; continue it with --resume")
    return manifest


def run_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run, which may come from elsewhere, with `overrides` on top.

    Raises UserError when it wants Python code to be run that comes with the model and `overrides` do not want it, too.
    """
    config = load_config(run / "config.yaml", overrides)
    if config.model.trust_remote_code and not any(word.startswith("model.trust_remote_code=") for word in overrides):
        raise UserError(
            f"{run / 'config.yaml'}: model.trust_remote_code runs Python code that comes with the model; if you know "
            "that code, say so here, too: model.trust_remote_code=true"
        )
    return config


def check_resumable(old: dict[str, Any], new: dict[str, Any], changed_settings: list[str]) -> None:
    """Raise UserError, naming each difference, when a run begun as `old` cannot go on as `new` (two manifests)."""
    differences = changed_settings + [
        f"{name} changed" if isinstance(value, str) else f"{name} was {old['identity'].get(name)}, is {value}"
        for name, value in new["identity"].items()
        if old["identity"].get(name) != value
    ]
    if differences:
        raise UserError("cannot resume: " + "; ".join(differences) + "; --force starts again")


def split_text(split: Split) -> Iterator[str]:
    """Which row, by index, is on which side, as the run's `split.json` has it: a JSON object, piece by piece."""
    for number, (name, side) in enumerate(split._asdict().items()):
        yield f'{", " if number else "{"}"{name}": ['
        for place, example in enumerate(side):
            yield (", " if place else "") + json.dumps(example.index, ensure_ascii=False)
        yield "]"
    yield "}\n"


def write_split(run: Path, split: Split) -> None:
    """Write `split.json`."""
    write_pieces(run / "split.json", split_text(split))


def text_sha256(pieces: Iterable[str]) -> str:
    """SHA-256 of a text in UTF-8, given piece by piece."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode())
    return digest.hexdigest()


def check_learned(run: Path) -> None:
    """Raise UserError when a file of what the run learned is missing or not what training wrote."""
    learned = weights_directory(run)
    for name, digest in read_manifest(run).get("learned", {}).items():
        path = learned / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UserError(f"{path}: is not what the training wrote; restore it, or train again")


def read_side(run: Path, side: str, examples: Sequence[Example]) -> Rows:
    """The rows of one side ("train", "validation" or "test") of a run's split, in its order.

    Raises UserError when the split is not the one that the run was trained with.
    """
    path = run / "split.json"
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != read_manifest(run)["identity"]["split"]:
        raise UserError(f"{path}: was changed after the training, so no row can be trusted to be held out")
    try:
        indexes = json.loads(content)[side]
        wanted = set(indexes)
        places = {example.index: place for place, example in enumerate(examples) if example.index in wanted}
        return Rows.of(examples).select(np.array([places[index] for index in indexes], np.int32))
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UserError(f"{path}: is not a split of these rows") from None


def training_data(run: Path, config: Config) -> Rows:
    """All rows of the run's data. Raises UserError when they are not those it was trained with."""
    data = load_data(config.data.path, config.data.revision)
    if data.sha256 != read_manifest(run)["identity"]["data"]:
        raise UserError(
            f"{config.data.path}: its rows are not those that {run} was trained with, so no row can be "
            "trusted to be held out; give the same file with data.path=…"
        )
    return data.examples


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
