"""A session in a terminal: lines are edited, kept, and taken whole when they are pasted."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from sft.ask.session import COMMANDS, Session, note
from sft.generation.answerer import Answerer
from sft.system.errors import UserError, warn
from sft.system.texts import text

PLACE = "calm-sft"
"""The program's directory among others' state."""


def converse(answerer: Answerer, system: str, overrides: list[str]) -> None:
    """Ask and answer until Ctrl-D; errors are a line, and the session goes on."""
    editor: PromptSession[str] = PromptSession(
        history=kept_history(),
        completer=WordCompleter(list(COMMANDS), sentence=True),
        complete_while_typing=False,
        multiline=True,
        key_bindings=keys(),
        prompt_continuation="… ",
    )
    aside: PromptSession[str] = PromptSession(multiline=True, key_bindings=keys(), prompt_continuation="… ")
    session = Session(answerer, system, overrides, aside.prompt)
    session.welcome()
    while True:
        try:
            line = editor.prompt(text("ask.prompt"))
            with unseen_keys():
                session.take(line)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # at the prompt: what was typed is dropped
            note(text("ask.leave"))
        except EOFError:
            return


@contextlib.contextmanager
def unseen_keys() -> Iterator[None]:
    """Keep what is typed in the block out of the answers on the screen; the next prompt shows it."""
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def keys() -> KeyBindings:
    """Enter sends, where the editor's own would begin a line; Alt+Enter and Ctrl-J begin one."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class _Kept(FileHistory):
    """A file of what was typed; where it cannot be written to, this session's lines are known all the same."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def kept_history() -> History:
    """What was typed in earlier sessions, for its user's eyes only; this session's alone where it cannot be kept."""
    path = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / PLACE / "history"
    try:
        path = path.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        warn([f"{path}: what is typed is not kept: {getattr(error, 'strerror', error)}"])
        return InMemoryHistory()
    return _Kept(path)
