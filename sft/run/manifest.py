"""What a run's manifest has to be before it is believed: it may come from elsewhere."""

import importlib.metadata
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sft.system.errors import UserError
from sft.system.files import read_json, write_text

Word = Annotated[str, Field(pattern=r"^[\w.+:\-]{1,200}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.\-]*$")]


class _Checked(BaseModel):
    """What is read of a manifest, as far as it is there; other keys may stand beside it."""

    model_config = ConfigDict(strict=True)


class Identity(_Checked):
    """What a resumed run must share."""

    data: Sha256
    tokenizer: Sha256
    template: Sha256
    split: Sha256
    processes: int


class Environment(_Checked):
    """What the run was made with."""

    python: Word
    packages: dict[Word, Word]
    machine: Word | None = None
    git_commit: Word | None = None


class RowCounts(_Checked):
    """Rows by side, and training rows by category and fate."""

    train: int
    validation: int
    test: int
    dropped: int
    truncation: dict[Annotated[str, Field(pattern=r"^[\w ]+$")], dict[Annotated[str, Field(pattern=r"^[\w ]+$")], int]]


class Manifest(_Checked):
    """`manifest.json`, which may come from elsewhere: its words are shown, and its names of files are opened."""

    status: Literal["running", "finished"]
    identity: Identity
    environment: Environment
    rows: RowCounts | None = None
    steps: int | None = None
    started: Word | None = None
    finished: Word | None = None
    seconds: float | None = None
    device: Word | None = None
    learned: dict[FileName, Sha256] | None = None
    base_commit: Word | None = None
    resumed: bool | None = None

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        wanted = (self.rows, self.steps, self.finished, self.seconds, self.device, self.learned)
        if self.status == "finished" and None in wanted:
            raise ValueError("a finished run has rows, steps, finished, seconds, device and learned")
        return self


PACKAGES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "safetensors",
)  # fmt: skip


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


def check_resumable(old: dict[str, Any], new: dict[str, Any], changed_settings: list[str]) -> None:
    """Raise UserError, naming each difference, when a run begun as `old` cannot go on as `new` (two manifests)."""
    differences = changed_settings + [
        f"{name} changed" if isinstance(value, str) else f"{name} was {old['identity'].get(name)}, is {value}"
        for name, value in new["identity"].items()
        if old["identity"].get(name) != value
    ]
    if differences:
        raise UserError("cannot resume: " + "; ".join(differences) + "; --force starts again")


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
