"""The hub as a place that may be out of reach: whether to ask it at all, and its refusals in one line."""

import functools
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, errors

from sft.system.errors import UserError, first_line


@functools.cache
def hub_is_absent() -> bool:
    """Whether the hub's name cannot even be resolved here, so that only the cache is worth asking.

    The hub's client would ask six times, with waits of half a minute in all. Behind a proxy it is the proxy that
    resolves names, so nothing is known.
    """
    endpoint = urlsplit(constants.ENDPOINT)
    if endpoint.scheme in urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo(endpoint.hostname, endpoint.port or endpoint.scheme)
    except socket.gaierror:
        return True
    return False


def out_of_reach(forbidden: bool = False) -> tuple[str, str]:
    """Why the hub was not asked for what the cache lacks, and the remedy; `forbidden`: its client said so itself."""
    if forbidden or constants.is_offline_mode():
        return "not in the cache, and HF_HUB_OFFLINE is set", "unset it to download"
    return f"not in the cache, and {constants.ENDPOINT} cannot be reached", "check the connection"


def loading_error(what: str, name: str, error: Exception) -> UserError:
    """What to do when `what` ("model", "tokenizer") cannot be loaded from `name`, a hub id or a directory."""
    problem, remedy = first_line(error), "check model.base and that its files are whole"
    if not Path(name).exists():
        problem, remedy = _hub_problem(name, error) or (problem, f"no directory {name} is here; check model.base")
    return UserError(f"{what} {name}: cannot be loaded ({problem}); {remedy}")


def _hub_problem(name: str, error: BaseException) -> tuple[str, str] | None:
    """What the hub said about repository `name`, and the remedy; None when the hub has no part in the error."""
    page = f"{constants.ENDPOINT}/{name}"
    cause: BaseException | None = error
    while cause is not None:  # transformers wraps what the hub's client raised
        if isinstance(cause, errors.GatedRepoError):
            return "it is gated", f"accept its terms at {page}, then run `hf auth login` with the same account"
        if isinstance(cause, errors.RevisionNotFoundError):
            return "no such revision", f"check model.revision against {page}/commits/main"
        if isinstance(cause, errors.RepositoryNotFoundError):
            remedy = f"check the spelling of {name}; for a private one run `hf auth login`; a directory works too"
            return "the hub has no such repository, or it is private", remedy
        if isinstance(cause, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
            problem, remedy = out_of_reach(isinstance(cause, errors.OfflineModeIsEnabled))
            return problem, f"{remedy}; a directory works too"
        cause = cause.__cause__ or cause.__context__
    return None
