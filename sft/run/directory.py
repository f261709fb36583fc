"""A run's directory: who may write to it, and which run is the newest."""

import fcntl
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from sft.config.load import load_config
from sft.config.sections import Config
from sft.run.manifest import read_manifest
from sft.system.errors import UserError
from sft.system.files import check_inside, file_sha256

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


def check_learned(run: Path) -> None:
    """Raise UserError when a file of what the run learned is missing or not what training wrote."""
    learned = weights_directory(run)
    for name, digest in read_manifest(run).get("learned", {}).items():
        path = learned / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UserError(f"{path}: is not what the training wrote; restore it, or train again")
