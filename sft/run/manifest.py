"""`manifest.json`: what a run is, and what it takes to do it again. One type, one writer, one reader."""

import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sft import __version__
from sft.data.drops import FileRead
from sft.data.files.sources import is_local
from sft.system.errors import UserError
from sft.system.files import read_json, text_sha256, write_whole

PACKAGES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "safetensors",
)  # fmt: skip

# A run may come from elsewhere: its words are shown, its names of files are opened.
Word = Annotated[str, Field(pattern=r"^[\w.+:\-]{1,200}$")]
Words = Annotated[str, Field(pattern=r"^[\w ]+$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.\-]*$")]


class Part(BaseModel):
    """A part of the manifest; keys of other versions may stand beside those that are known."""

    model_config = ConfigDict(strict=True)


class Identity(Part):
    """What a resumed run must share. The hashes are SHA-256."""

    data: Sha256
    tokenizer: Sha256
    template: Sha256
    split: Sha256
    processes: int
    divided_by: Word | None = None
    """What divides the weights among the processes, in accelerate's words; None: each has all of them."""


class Environment(Part):
    """What the run was made with."""

    python: Word
    packages: dict[Word, Word]
    machine: Word | None = None
    git_commit: Word | None = None

    @classmethod
    def now(cls) -> Self:
        """Versions of Python, this project and the libraries, the machine, and the checkout's commit."""
        return cls(
            python=platform.python_version(),
            packages={"calm-sft": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
            machine=platform.machine(),
            git_commit=_commit(Path(__file__).parents[2]),
        )


def _commit(root: Path) -> str | None:
    """The commit of the checkout that `root` is; None where it is none, or is inside another one, or git is absent."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(root), "rev-parse", "--show-prefix", "HEAD"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    below, _, commit = git.stdout.partition("\n")
    return commit.strip() if git.returncode == 0 and not below else None


class FileCounts(Part):
    """A file of the data: its name, SHA-256 (None: a hub data set), and usable and unusable rows."""

    name: str = Field(max_length=1000)
    sha256: Sha256 | None
    rows: int
    dropped: int


class RowCounts(Part):
    """Rows by side, those that could not be used, and training rows by category and what the length limit did."""

    train: int
    validation: int
    test: int
    dropped: int
    truncation: dict[str, dict[Words, int]]
    files: list[FileCounts] = []
    """Of what they were read; empty in runs of earlier versions."""


class Parent(Part):
    """The finished run whose adapter this one goes on from: its directory's name, its id, and what it had learned."""

    run: str = Field(max_length=200)
    started: Word
    learned: Sha256


class Manifest(Part):
    """What a run is, from its first moment on."""

    status: Literal["running", "finished"]
    started: Word
    """When it was begun, which tells its checkpoints from another run's."""
    identity: Identity
    rows: RowCounts
    steps: int
    packed: bool | None = None
    environment: Environment
    resumed: bool = False
    """Whether the last start went on from a checkpoint."""
    activation_checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass; kept on resume, since another choice rounds
    otherwise."""
    micro_batch_rows: int | None = None
    """Rows of a micro-batch at most, kept like that: what memory left of `training.per_device_train_batch_size`."""
    compiled_norms: bool | None = None
    """Whether the model's norms are compiled (`sft.model.norms`), kept like that; None in runs of earlier versions:
    they are not."""
    base_commit: Word | None = None
    """The base model's commit on the hub; None for a directory."""
    base_sha256: Sha256 | None = None
    """Of the base model's files, where it was a directory; see `sft.model.base_identity`."""
    part_of_more: bool | None = None
    """Whether the base model is the text model of one of text and images; None in runs of earlier versions."""

    parent: Parent | None = None
    """None: the adapter was a fresh one."""

    def check_goes_on(self, begun: Self, changed_settings: Sequence[str]) -> None:
        """Raise UserError, naming each difference, when a run that was begun as `begun` cannot go on as this one."""
        now, then = self.identity.model_dump(), begun.identity.model_dump()
        differences = [*changed_settings]
        for name, value in now.items():
            if value != then[name]:
                is_hash = isinstance(value, str) and isinstance(then[name], str)
                differences.append(f"{name} changed" if is_hash else f"{name} was {then[name]}, is {value}")
        if (begun.base_commit, begun.base_sha256) not in ((None, None), (self.base_commit, self.base_sha256)):
            differences.append("the base model changed")
        if begun.parent != self.parent:
            differences.append("the run that model.adapter names was trained again")
        if differences:
            raise UserError(
                "cannot resume: " + "; ".join(differences) + "; give its own settings, or --force starts again"
            )


class Kept(Part):
    """Which step's weights a run ended with."""

    step: int
    of: int
    """Steps that were done."""
    by: Word | None = None
    """Of which validation loss it is the lowest ("overall" or a group's); None: it is the last step."""
    loss: float | None = None
    """That loss, in nats a supervised token."""


class FinishedManifest(Manifest):
    """The manifest of a run whose training has ended."""

    kept: Kept | None = None
    """None in runs of earlier versions, which ended with the last step."""

    finished: Word
    seconds: float
    """Of the last start; a resumed run does not count what came before."""
    learned: dict[FileName, Sha256]
    """The files of `adapter/` or `model/` and their hashes."""
    memory_peak_bytes: int | None = None
    device: Word

    @property
    def learned_sha256(self) -> str:
        """One hash of all that was learned, to tell whose answers these are."""
        return text_sha256(f"{name} {digest}\n" for name, digest in sorted(self.learned.items()))


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    values = manifest.model_dump(exclude_none=True)
    write_whole(run / "manifest.json", json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def read_manifest(run: Path) -> Manifest:
    """A run's manifest. Raises UserError when there is none, or it is not one of ours."""
    try:
        values = read_json(run / "manifest.json")
    except UserError as error:
        raise UserError(f"{run}: not a run directory ({error}); train one first") from None
    try:
        finished = isinstance(values, dict) and values.get("status") == "finished"
        return (FinishedManifest if finished else Manifest).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{run / 'manifest.json'}: is not the manifest of a run ({place}: {first['msg']})") from None


def truncation_counts(fates: Mapping[tuple[str, Any], int]) -> dict[str, dict[str, int]]:
    """Counts by (category, fate) as the manifest holds them: category → fate → rows."""
    counts: dict[str, dict[str, int]] = {}
    for (category, fate), count in sorted(fates.items()):
        counts.setdefault(category, {})[fate] = count
    return counts


def file_counts(files: Iterable[FileRead]) -> list[FileCounts]:
    """What was read of each file, as the manifest holds it: without the places of files on somebody's machine."""
    return [
        FileCounts(
            name=Path(file.path).name if is_local(file.path) else file.path,
            sha256=file.sha256,
            rows=file.rows,
            dropped=file.dropped,
        )
        for file in files
    ]


def now() -> str:
    """The present moment in UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
