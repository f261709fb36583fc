"""What a run's manifest has to be before it is believed: it may come from elsewhere."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
