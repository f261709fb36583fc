"""A conversation, in OpenAI's or ShareGPT's spelling, becomes a question, its answer and the turns before."""

import json
from typing import Any, NamedTuple

from sft.data.fields.cells import is_empty
from sft.data.files.raw import BadRow

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "ユーザー": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "アシスタント": "assistant",
}  # fmt: skip
"""The spellings of the three roles."""
CONTENTS = ("content", "value", "text")
"""What a message's text is called."""
TOOLS = {"tool", "function", "function_call", "function_response", "observation", "ipython"}


class Conversation(NamedTuple):
    """The last question and answer, and the turns before: [role, content], roles system, user and assistant."""

    history: list[list[str]]
    instruction: str
    output: str


def conversation(value: Any, asks: bool = False) -> Conversation:
    """The conversation in a list of messages, or its JSON. Raises BadRow where no question and answer end it.

    `asks`: it ends with a question; an answer behind it is not read, and the output is empty.
    """
    messages = _list(value)
    if asks and messages and _role(messages[-1]) == "assistant":
        messages = messages[:-1]
    turns = [_turn(message, asks) for message in messages]
    roles = [role for role, _ in turns if role != "system"]
    if not roles:
        raise BadRow("a conversation without messages")
    if not asks and roles[-1] != "assistant":
        raise BadRow("a conversation that does not end with an answer")
    if roles[0] != "user":
        raise BadRow("a conversation that does not begin with a question")
    _check_turns([*turns, ("assistant", "…")] if asks else turns, "conversation")
    *before, question, answer = [*turns, ("assistant", "")] if asks else turns
    return Conversation([[role, content] for role, content in before if content.strip()], question[1], answer[1])


def _check_turns(turns: list[tuple[str, str]], what: str) -> None:
    """Raise BadRow unless questions and answers follow upon each other, all of them behind the system's messages."""
    first = next((place for place, (role, _) in enumerate(turns) if role != "system"), len(turns))
    roles = [role for role, _ in turns[first:]]
    if "system" in roles:
        raise BadRow(f"a system message inside a {what}")
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadRow(f"a {what} whose questions and answers do not alternate")
    if any(not content.strip() for _, content in turns[first:]):
        raise BadRow(f"a {what} with an empty message")


def _list(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # as tables hold it
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("messages are not JSON") from None
    if not isinstance(value, list):
        raise BadRow("messages are not a list")
    return value


def _role(message: Any) -> str | None:
    """A message's role, as `ROLES` has it or as it is written there; None for none."""
    role = message.get("role", message.get("from")) if isinstance(message, dict) else None
    return ROLES.get(str(role).strip().lower(), str(role)) if role is not None else None


def _turn(message: Any, asks: bool) -> tuple[str, str]:
    """A message's role and text."""
    if not isinstance(message, dict):
        raise BadRow("a message is not an object")
    role = _role(message)
    if str(role).strip().lower() in TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise BadRow("a conversation with tool calls, which are not trained")
    if role is None:
        raise BadRow("a message without a role")
    if role not in ROLES.values():
        raise BadRow(f"a message of an unknown role ({role[:20]})")
    if role == "assistant" and message.get("weight") == 0 and not asks:
        raise BadRow("an answer of weight 0, which is not to be learned")
    contents = [message[name] for name in CONTENTS if name in message]
    if not contents:
        raise BadRow("a message without content")
    return role, _content(next((content for content in contents if content is not None), None))


def _content(content: Any) -> str:
    """The text of a message's content, which may come in parts."""
    if content is None:
        return ""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in ("text", "input_text", "output_text"):
            raise BadRow(f"a message with a part that is no text ({str(kind)[:20]})")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadRow("a message whose content is not text")
    return "".join(map(str, texts))


def earlier_turns(value: Any, asks: bool = False) -> list[list[str]]:
    """A column `history`: pairs of question and answer, or messages. Raises BadRow for anything else."""
    if is_empty(value):
        return []
    turns: list[tuple[str, str]] = []
    for item in _list(value):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            turns += [("user", item[0]), ("assistant", item[1])]
        elif isinstance(item, dict):
            turns.append(_turn(item, asks))
        else:
            raise BadRow("history is not a list of questions and answers")
    _check_turns(turns, "history")
    return [[role, content] for role, content in turns if content.strip()]
