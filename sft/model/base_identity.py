"""Which base model it is: its commit on the hub, or the hash of its files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from sft.config.sections import ModelSection
from sft.model.load import load_base_config
from sft.system.errors import UserError
from sft.system.files import file_sha256, text_sha256


class BaseIdentity(NamedTuple):
    """A base model's commit, or the SHA-256 of a directory's configuration and weights; None where not known."""

    commit: str | None
    sha256: str | None


def base_identity(section: ModelSection) -> BaseIdentity:
    """Identify the base model that `section` names. Raises UserError when it cannot be read.

    The files of a directory are read whole, some seconds for a model of 14 GB; the hub's are known by their commit.
    """
    directory = Path(section.base)
    if not directory.is_dir():
        config = load_base_config(section.base, section.revision, section.trust_remote_code)
        return BaseIdentity(getattr(config, "_commit_hash", None), None)
    weights = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    try:
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(file_sha256, [directory / "config.json", *weights]))
    except OSError as error:
        raise UserError(f"model {section.base}: cannot be read: {error.strerror} ({error.filename})") from None
    names = ["config.json", *(path.name for path in weights)]
    lines = (f"{name} {digest}\n" for name, digest in zip(names, hashes, strict=True))
    return BaseIdentity(None, text_sha256(lines))
