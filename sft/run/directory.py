"""A run's directory: who may write to it, and which run is the newest."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from sft.config.load import load_config
from sft.config.sections import Config
from sft.run.bare_adapter import bare_config, is_bare_adapter
from sft.run.checkpoints import RECORD
from sft.run.feedback import RATINGS, ROWS
from sft.run.manifest import FinishedManifest, read_manifest
from sft.system.command_line import as_typed
from sft.system.errors import UserError, say, warn
from sft.system.files import check_inside, file_sha256, take_lock
from sft.system.processes import RANK
from sft.system.whole_directory import restore

RUNS = Path("runs")


def check_directory(run: Path, resume: bool, force: bool) -> None:
    """Raise UserError when training into `run` would lose something or cannot go on; changes nothing."""
    if resume and force:
        raise UserError("--resume keeps an existing run and --force replaces it: give one of them")
    if resume:
        if not (run / "manifest.json").is_file():
            raise UserError(f"{run}: there is no run to resume; start it without --resume")
        if read_manifest(run).status == "finished":
            raise UserError(f"{run}: this run has finished; --force trains it again from the start")
        return
    if holds_something(run):
        try:
            finished = read_manifest(run).status == "finished"
        except UserError:
            raise UserError(
                f"{run}: exists and is not a run of this program, so it is not replaced; move it away"
            ) from None
        if not force:
            resumes = "has finished; " if finished else "exists already; --resume continues it, "
            raise UserError(f"{run}: {resumes}--force replaces it")
        if (run / RATINGS).is_file():
            raise UserError(f"{run / RATINGS}: --force would lose what people said; move it away, and {ROWS} with it")


def holds_something(path: Path) -> bool:
    """Whether there is anything to lose at `path`; empty directories, as a failed start leaves them, are nothing."""
    if not path.is_dir() or path.is_symlink():
        return path.exists() or path.is_symlink()
    return any(map(holds_something, path.iterdir()))


def lock_directory(run: Path) -> IO[str]:
    """Keep other processes from training into `run`, and from reading it, as long as the file returned is open.

    Raises UserError when one does. The lock is beside the run, so that replacing the run does not lose it, and the
    system drops it however a process ends. A link to a run shares the run's own.
    """
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        _beside(run, "discarded-run").exists()  # an error now, and not later, where its name is too long
        lock = _beside(run, "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}") from None
    if not take_lock(lock, run):
        if take_lock(lock, run, shared=True):
            lock.close()
            raise UserError(f"{run}: is in use (asked, evaluated or exported); wait for that or stop it")
        lock.seek(0)
        raise UserError(f"{run}: is being trained by process {lock.read().strip()}; wait for it or stop it")
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


@contextlib.contextmanager
def owned(run: Path, resume: bool, force: bool) -> Iterator[None]:
    """Let this process alone train into `run` while the block runs; the first of several processes stands for all.

    When the block fails with nothing to go on from, a run that was to be replaced is back. Raises UserError as
    `check_directory` and `lock_directory` do.
    """
    if RANK != 0:
        yield
        return
    with lock_directory(run):
        put_back(run)  # what a start before this one may have left
        check_directory(run, resume, force)
        if resume:
            check_inside(run)
        try:
            yield
        except BaseException:
            put_back(run)
            raise


def claim_directory(run: Path) -> None:
    """Make `run` an empty directory. A run that `check_directory` allowed to replace waits beside it.

    It waits until the new run has something to go on from (`forget_replaced`), and comes back if that never happens
    (`put_back`). The caller holds the lock.
    """
    run = Path(os.path.realpath(run))  # a link stays, and what it leads to is replaced
    try:
        if holds_something(run):
            run.rename(_beside(run, "replaced-run"))
        elif run.exists():
            shutil.rmtree(run)  # empty directories of a failed start
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}") from None


def forget_replaced(run: Path) -> None:
    """Remove the run that `run` replaced, if there is one. The caller holds the lock."""
    _discard(_beside(run, "replaced-run"), run)


def put_back(run: Path) -> None:
    """Undo a start under --force that left nothing to go on from; otherwise finish it. The caller holds the lock."""
    if not os.path.exists(_beside(run, "replaced-run")) or _has_begun(run):
        forget_replaced(run)
        return
    real = Path(os.path.realpath(run))
    _discard(real, run)
    _beside(run, "replaced-run").rename(real)
    say(f"{run}: the run that was there before is back", sys.stderr)


def _discard(directory: Path, run: Path) -> None:
    """Remove a directory, if it is there, by another name: half a run must neither come back nor stand in the way."""
    gone = _beside(run, "discarded-run")
    shutil.rmtree(gone, ignore_errors=True)
    if directory.exists():
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def settle(run: Path) -> None:
    """`put_back` what a killed start under --force left behind, and exports that were being replaced.

    Nothing while a training, or an export, runs.
    """
    for left in (run / "export").glob(".*.replaced"):
        restore(left.with_name(left.name.removeprefix(".").removesuffix(".replaced")))
    if not os.path.exists(_beside(run, "replaced-run")) and not os.path.exists(_beside(run, "discarded-run")):
        return
    with contextlib.suppress(UserError), lock_directory(run):
        put_back(run)


def _beside(run: Path, what: Literal["lock", "replaced-run", "discarded-run"]) -> Path:
    """A hidden place beside a run, or beside what a link to one leads to."""
    real = Path(os.path.realpath(run))
    return real.parent / f".{real.name}.{what}"


def _has_begun(run: Path) -> bool:
    """Whether something was learned that must not be lost: a whole checkpoint, or what the training ended with."""
    return weights_directory(run).is_dir() or any((run / "checkpoints").glob(f"checkpoint-*/{RECORD}"))


def weights_directory(run: Path) -> Path:
    """What a finished run has learned, with its tokenizer and template: `adapter`, or `model` when all was trained.

    A bare adapter is all that there is of it.
    """
    if is_bare_adapter(run):
        return run
    model = run / "model"
    return model if model.is_dir() else run / "adapter"


def newest_finished_run(runs: Path = RUNS) -> Path:
    """The run that finished last. Raises UserError when none has."""
    for left in runs.glob(".*.replaced-run"):
        settle(left.with_name(left.name.removeprefix(".").removesuffix(".replaced-run")))
    finished = []
    for path in runs.glob("[!.]*/manifest.json"):
        try:
            manifest = read_manifest(path.parent)
        except UserError as error:
            warn([f"left out: {error}"])
            continue
        if isinstance(manifest, FinishedManifest):
            finished.append((manifest.finished, path.parent))
    if not finished:
        command = as_typed("accelerate launch train_sft.py configs/calm7b-4bit.yaml")
        raise UserError(f"{runs}: no finished run here; train one: {command}")
    return max(finished)[1]


def require_finished(run: Path) -> FinishedManifest:
    """The manifest of a run whose training has finished. Raises UserError for any other, and for links out of it."""
    settle(run)
    manifest = read_manifest(run)  # before all files below are looked at: it may be anybody's directory
    check_inside(run)
    if not isinstance(manifest, FinishedManifest):
        raise UserError(f"{run}: the training has not finished; continue it with --resume")
    return manifest


def require_usable(run: Path) -> FinishedManifest | None:
    """`require_finished`, or None for a bare adapter, of whose training nothing is known."""
    if not is_bare_adapter(run):
        return require_finished(run)
    check_inside(run)
    return None


def is_being_trained(run: Path) -> bool:
    """Whether a process on this machine trains into a run at the moment; leaves nothing behind."""
    try:
        with _beside(run, "lock").open(encoding="utf-8") as lock:
            return not take_lock(lock, run, shared=True)
    except (OSError, UserError):  # nobody has locked it, or nobody can
        return False


@contextlib.contextmanager
def in_use(run: Path) -> Iterator[None]:
    """Let nobody train a finished run again while the block runs. Raises UserError as `require_usable` does."""
    if require_usable(run) is None:  # before a lock is left beside what is no run
        yield
        return
    with contextlib.ExitStack() as stack:
        free = True
        with contextlib.suppress(OSError, UserError):  # where there can be no lock, there can be no training either
            path = _beside(run, "lock")
            mode = "r" if path.exists() and not os.access(path, os.W_OK) else "a+"  # somebody else's run
            lock = stack.enter_context(path.open(mode, encoding="utf-8"))
            free = take_lock(lock, run, shared=True)
        if not free:
            raise UserError(f"{run}: is being trained; wait for it")
        require_finished(run)  # it may have been replaced in between
        yield


def settings_of(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run was trained with, or that a bare adapter is used with, with `overrides` on top."""
    if is_bare_adapter(run):
        return bare_config(run, overrides)
    return load_config(run / "config.yaml", overrides, to_train=False)


def run_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run, which may come from elsewhere, with `overrides` on top.

    A base model of the hub is the commit that was trained on, unless `overrides` name another. Raises UserError when it
    wants Python code to be run that comes with the model and `overrides` do not want it, too.
    """
    if is_bare_adapter(run):
        return bare_config(run, overrides)
    changed = {word.partition("=")[0] for word in overrides}
    commit = read_manifest(run).base_commit
    pinned = [f"model.revision={commit}"] if commit and not changed & {"model", "model.base", "model.revision"} else []
    config = settings_of(run, [*pinned, *overrides])
    if config.model.trust_remote_code and "model.trust_remote_code" not in changed:
        raise UserError(
            f"{run / 'config.yaml'}: model.trust_remote_code runs Python code that comes with the model; if you know "
            "that code, say so here, too: model.trust_remote_code=true"
        )
    return config


def check_learned(run: Path, manifest: FinishedManifest) -> None:
    """Raise UserError when what the finished run learned is not, file by file, what training wrote."""
    learned = weights_directory(run)
    there = {path.name for path in learned.glob("[!.]*") if path.is_file()}
    for name in sorted(there - manifest.learned.keys()):
        raise UserError(f"{learned / name}: was not there when the training ended; move it away")
    for name, digest in manifest.learned.items():
        path = learned / name
        if name not in there or file_sha256(path) != digest:
            raise UserError(f"{path}: is not what the training wrote; restore it, or train again")
