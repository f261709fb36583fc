"""A conversation, in OpenAI's or ShareGPT's spelling, becomes a question, its answer and the turns before."""

import json
from typing import Any, NamedTuple

from sft.data.files.raw import BadRow

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "ユーザー": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "アシスタント": "assistant",
}  # fmt: skip
"""The spellings of the three roles."""
TOOLS = {"tool", "function", "function_call", "function_response", "observation", "ipython"}


class Conversation(NamedTuple):
    """The last question and answer, and the turns before: [role, content], roles system, user and assistant."""

    history: list[list[str]]
    instruction: str
    output: str


def conversation(value: Any, asks: bool = False) -> Conversation:
    """The conversation in a list of messages, or its JSON. Raises BadRow where no question and answer end it.

    `asks`: it may end with a question; its output is empty then.
    """
    turns = [_turn(message) for message in _list(value)]
    open_end = asks and bool(turns) and turns[-1][0] == "user"
    turns += [("assistant", "")] * open_end
    first = next((place for place, (role, _) in enumerate(turns) if role != "system"), len(turns))
    roles = [role for role, _ in turns[first:]]
    if "system" in roles:
        raise BadRow("a system message inside a conversation")
    if not roles:
        raise BadRow("a conversation without messages")
    if roles[-1] != "assistant":
        raise BadRow("a conversation that does not end with an answer")
    if roles[0] != "user":
        raise BadRow("a conversation that does not begin with a question")
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadRow("a conversation whose questions and answers do not alternate")
    if any(not content.strip() for _, content in turns[first : len(turns) - open_end]):
        raise BadRow("a conversation with an empty message")
    before = [[role, content] for role, content in turns[:-2] if content.strip()]
    return Conversation(before, turns[-2][1], turns[-1][1])


def _list(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # as tables hold it
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("messages are not JSON") from None
    if not isinstance(value, list):
        raise BadRow("messages are not a list")
    return value


def _turn(message: Any) -> tuple[str, str]:
    """A message's role and text."""
    if not isinstance(message, dict):
        raise BadRow("a message is not an object")
    role = message.get("role", message.get("from"))
    name = role.strip().lower() if isinstance(role, str) else None
    if name in TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise BadRow("a conversation with tool calls, which are not trained")
    if name not in ROLES:
        raise BadRow("a message without a role" if role is None else f"a message of an unknown role ({str(role)[:20]})")
    if ROLES[name] == "assistant" and message.get("weight") == 0:
        raise BadRow("an answer of weight 0, which is not to be learned")
    return ROLES[name], _content(message.get("content", message.get("value")))


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


def earlier_turns(value: Any) -> list[list[str]]:
    """A column `history`: pairs of question and answer, or messages. Raises BadRow for anything else."""
    if value in (None, "", []):
        return []
    turns = []
    for item in _list(value):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) and text.strip() for text in item):
            turns += [["user", item[0]], ["assistant", item[1]]]
        elif isinstance(item, dict):
            turns.append(list(_turn(item)))
        else:
            raise BadRow("history is not a list of questions and answers")
    roles = [role for role, _ in turns if role != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadRow("a history whose questions and answers do not alternate")
    return turns
