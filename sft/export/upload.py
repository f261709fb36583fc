"""Upload of an exported directory to the Hugging Face hub, as one commit, with the token of HF's own login."""

import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id
from rich.filesize import decimal

from sft.system.errors import UserError, first_line, say

OURS = (
    "model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "adapter_config.json",
    "config.json", "generation_config.json", "model-*.gguf", "Modelfile",
)  # fmt: skip
"""Files of an earlier export that must not stay beside those of a new one; everything else there is left alone."""


def check_hub_id(option: str, hub_id: str) -> None:
    """Raise UserError, naming the option, for what cannot be the id of a repository, with an owner or without."""
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
    if huggingface_hub.get_token() is None:
        raise UserError("--push: nobody is logged in to the hub here; run `hf auth login`, or set HF_TOKEN")


def push(directory: Path, repo_id: str, private: bool, yes: bool) -> None:
    """Show what would be uploaded, ask unless `yes`, and upload. Raises UserError where nobody can be asked."""
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()}
    print(f"to be uploaded to {repo_id} ({'private' if private else 'public, unless it is private already'}):")
    for name, size in (sizes | {"in all": sum(sizes.values())}).items():
        print(f"  {decimal(size):>10}  {name}", flush=True)
    if yes or confirmed(directory):
        print(f"uploaded: {upload(directory, list(sizes), repo_id, private)}")
    else:
        say(f"nothing was uploaded; the export is in {directory}")


def confirmed(directory: Path) -> bool:
    """Whether somebody at the terminal says yes."""
    if not sys.stdin.isatty():
        raise UserError(f"nobody can be asked here: --yes uploads without a question; the export is in {directory}")
    try:
        return input("upload? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def upload(directory: Path, names: list[str], repo_id: str, private: bool) -> str:
    """Upload the directory's files of these names as one commit and return its address.

    The repository is made when it is absent. Raises UserError when the hub refuses, or when the repository is there,
    public, and `private` was asked for.
    """
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
            allow_patterns=names,
            delete_patterns=list(OURS),
            commit_message="Export",
        )
    except (HTTPError, OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{repo_id}: the hub did not take it ({reason}); the export is in {directory}") from None
    return str(commit.commit_url)
