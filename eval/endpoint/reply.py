"""What a server said to one request, read from its JSON, whatever its engine calls things. No torch here."""

import dataclasses
from typing import Any

from sft.system.files import parse_json

MOST_TOKENS = 10**9
"""What a prediction may have; a larger count is a server's mistake."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `finish` is why it ended, in the server's word; None: it did not say.

    `stopped_at` is the stop string it ended at, "" for the end-of-text token, None where the server does not tell the
    two apart. Tokens are 0 where it does not count them. `refused`: it says itself that it declined.
    """

    text: str
    finish: str | None = None
    stopped_at: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    refused: bool = False


def read_reply(content: str) -> Reply:
    """The reply in a response's body, of /chat/completions or /completions. Raises ValueError for any other form."""
    try:
        body = parse_json(content)
    except (ValueError, RecursionError):
        raise ValueError(f"answered with no JSON: {content.strip()[:80] or 'nothing'}") from None
    if not isinstance(body, dict) or body.get("error"):
        raise ValueError(f"answered with {'an error' if isinstance(body, dict) else 'no object'}: {content[:200]}")
    try:
        choice = body["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        finish, refusal = choice.get("finish_reason"), message.get("refusal")
        text = _text(message["content"]) or (refusal if isinstance(refusal, str) else "")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"answered in another form: {content[:80]}") from None
    return Reply(
        text=text,
        finish=finish if isinstance(finish, str) else None,
        stopped_at=_stopped_at(choice),
        prompt_tokens=_count(body, "prompt_tokens"),
        output_tokens=_count(body, "completion_tokens"),
        refused=bool(refusal) or finish == "content_filter",
    )


def _text(content: Any) -> str:
    """A message's text: one, its parts, or none, as of a model that only thought. Raises TypeError for others."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _stopped_at(choice: dict[str, Any]) -> str | None:
    """vLLM's stop_reason: a stop string, or a token's number or null where it was none; others have no such key."""
    if "stop_reason" not in choice:
        return None
    return found if isinstance(found := choice["stop_reason"], str) else ""


def _count(body: dict[str, Any], name: str) -> int:
    usage = body.get("usage")
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found <= MOST_TOKENS else 0  # true is an int, too
