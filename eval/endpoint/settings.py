"""What somebody asks of a server on the command line, checked before anything is sent. No torch here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sft.config.load import override
from sft.prompt.template import CHAT_TEMPLATES, TEMPLATES
from sft.system.errors import UserError
from sft.system.files import short_name
from sft.system.visible import holds_token, is_text

CHAT = "chat"
PROMPTS = (*CHAT_TEMPLATES, *TEMPLATES)
"""How a row is asked: as a user's message, or as the prompt of one of the project's templates."""
MOST_AT_ONCE = 1000


class Server(NamedTuple):
    """Whom to ask, how many requests at once, and for how many seconds to wait for each."""

    url: str
    model: str
    concurrency: int = 8
    timeout: float = 600.0

    def __str__(self) -> str:
        return f"{self.url} ({self.model})"


def server_of(url: str, model: str, concurrency: int, timeout: float) -> Server:
    """The server that the command line names. Raises UserError for what cannot be asked."""
    if not model.strip() or not is_text(model):
        raise UserError("--model is empty; name one that the server has")
    if not 1 <= concurrency <= MOST_AT_ONCE:
        raise UserError(f"--concurrency {concurrency}: must be at least 1 and at most {MOST_AT_ONCE}")
    if not 0 < timeout <= 86_400:
        raise UserError(f"--timeout {timeout:g}: must be above 0 seconds, and at most a day")
    return Server(server_url(url), model, concurrency, timeout)


def server_url(text: str) -> str:
    """An endpoint as somebody writes it, as the client wants it: http://localhost:8000 is http://localhost:8000/v1.

    Raises UserError for what is no address, and for one with a login or key in it, which results would show.
    """
    try:
        parts = urlsplit(text.strip())
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise UserError(f"--endpoint {text}: {error}") from None
    if not is_address:
        raise UserError(f"--endpoint {text}: is not an address such as http://localhost:8000/v1")
    if holds_token(text):
        raise UserError(f"--endpoint {text}: holds a login or a key; set OPENAI_API_KEY instead")
    path = parts.path.rstrip("/").removesuffix("/completions").removesuffix("/chat")
    return parts._replace(path=path or "/v1", query="", fragment="").geturl()


def request_settings(words: Sequence[str], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is sent beside the texts, and the words that are about something else.

    `request.key=value` sends a key of the server's API as it is, in place of the default; null leaves one out. Raises
    UserError for a word that is none, for the texts themselves, and for a key or login, which files would keep.
    """
    values: dict[str, Any] = {}
    others = []
    for word in words:
        if not word.startswith("request."):
            others.append(word)
            continue
        key = override(values, word)
        if key.split(".")[1] in ("messages", "prompt", "model", "stream", "n"):
            raise UserError(f"command line: {key} is not set here")
        if holds_token(word):
            raise UserError(f"command line: {key} holds a login or a key; set OPENAI_API_KEY instead")
    found = {**defaults, **values.get("request", {})}
    return {key: value for key, value in found.items() if value is not None}, others


def as_directory(model: str) -> str:
    """A model's name as part of a directory's: org/model-7B is org-model-7B."""
    return short_name(re.sub(r"[^\w.\-]+", "-", model).strip("-.") or "model")
