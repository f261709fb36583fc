"""What somebody asks of an export. Neither torch nor the hub's client here."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sft.system.errors import UserError

NOT_ON_HUB = "none"
"""What --base-id says of a base model that is on no hub."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line of `python -m sft.export`, whose options are explained there."""

    run: Path
    overrides: Sequence[str] = ()
    merge: bool = False
    gguf: Literal["f32", "f16", "q8_0", "q4_k_m"] | None = None
    llama_cpp: Path | None = None
    output: Path | None = None
    shard_size: str = "2GB"
    base_id: str | None = None
    data_license: str | None = None
    push: str | None = None
    private: bool = False
    yes: bool = False

    @property
    def kind(self) -> Literal["adapter", "merged"]:
        """What is exported: the adapter by itself, or base and adapter as one model."""
        return "merged" if self.merge or self.gguf else "adapter"

    @property
    def target(self) -> Path:
        """The directory it goes to."""
        return (self.output or self.run / "export" / self.kind).absolute()

    def check(self) -> None:
        """Raise UserError for options that cannot be met, before any work."""
        from sft.export.gguf.llama_cpp import find_llama_cpp
        from sft.export.upload import check_login, check_repo_id

        if (self.private or self.yes) and not self.push:
            raise UserError(f"{'--private' if self.private else '--yes'} goes with --push")
        if self.gguf:
            find_llama_cpp(self.llama_cpp, self.gguf)
        elif self.llama_cpp:
            raise UserError("--llama-cpp goes with --gguf")
        if self.base_id and self.base_id != NOT_ON_HUB:
            check_repo_id("--base-id", self.base_id)
        if self.push:
            check_repo_id("--push", self.push)
            check_login()
