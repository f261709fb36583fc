"""Upload of an exported directory to the Hugging Face hub, as one commit, with the token of HF's own login."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from sft.system.errors import UserError, first_line

OURS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "adapter_config.json")
"""Files of an earlier export that must not stay beside those of a new one; everything else there is left alone."""


def check_hub_id(option: str, hub_id: str) -> None:
    """Raise UserError, naming the option, for what cannot be the id of a repository, with an owner or without."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UserError(f"{option} {hub_id}: {first_line(error)}") from None


def check_repo_id(option: str, repo_id: str) -> None:
    """Raise UserError, naming the option, for what is not owner/name."""
    check_hub_id(option, repo_id)
    if "/" not in repo_id:
        raise UserError(f"{option} {repo_id}: name the owner, too: owner/{repo_id}")


def check_login() -> None:
    """Raise UserError when nobody is logged in to the hub."""
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise UserError("--push: nobody is logged in to the hub here; run `hf auth login`, or set HF_TOKEN")


def push(directory: Path, repo_id: str, private: bool, yes: bool) -> None:
    """Upload an export after a question."""
    if confirm(directory, repo_id, private, yes):
        print(f"uploaded: {upload(directory, repo_id, private)}")
    else:
        print(f"nothing was uploaded; the export is in {directory}")


def confirm(directory: Path, repo_id: str, private: bool, yes: bool) -> bool:
    """Show what would be uploaded and ask, unless `yes`. Raises UserError where nobody can be asked."""
    sizes = {path.name: path.stat().st_size for path in _files(directory)}
    print(f"to be uploaded to {repo_id} ({'private' if private else 'public, unless it is private already'}):")
    for name, size in (sizes | {"in all": sum(sizes.values())}).items():
        print(f"  {decimal(size):>10}  {name}", flush=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"nobody can be asked here: --yes uploads without a question; the export is in {directory}")
    try:
        return input("upload? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def upload(directory: Path, repo_id: str, private: bool) -> str:
    """Upload the directory's files as one commit and return its address.

    The repository is made when it is absent. Raises UserError when the hub refuses, or when the repository is there,
    public, and `private` was asked for.
    """
    import huggingface_hub
    from huggingface_hub.errors import HTTPError

    api = huggingface_hub.HfApi()
    try:
        # None leaves it to the owner's setting; an existing repository stays what it is.
        api.create_repo(repo_id, private=private or None, repo_type="model", exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type="model").private:
            raise UserError(
                f"{repo_id}: is there and public; make it private on the hub first, or push to another name"
            )
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="model",
            folder_path=directory,
            allow_patterns=[path.name for path in _files(directory)],
            delete_patterns=list(OURS),
            commit_message="Export",
        )
    except (HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{repo_id}: the hub did not take it ({first_line(error)}); the export is in {directory}"
        ) from None
    return str(commit.commit_url)


def _files(directory: Path) -> Sequence[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())
