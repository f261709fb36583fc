"""The settings of a configuration: what each means, what it may be, and what it is where nothing is said.

    python -m sft.config                        the sections, and all keys
    python -m sft.config training               the keys of a section, explained
    python -m sft.config learning_rate          one key

Each is written as on the command line of training, answering and evaluation: section.key=value. In a YAML file the
section is a mapping, with the key in it.
"""

import shutil
import textwrap

from sft.config.hints import as_setting
from sft.config.reference import Key, about, keys_of
from sft.config.sections import SECTIONS
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error, say


def main() -> None:
    """Read the command line, and print what it names."""
    parser = command_parser(__doc__, "python -m sft.config", as_setting)
    parser.add_argument("name", nargs="?", metavar="SECTION|KEY", help="what to explain; all sections if left out")
    typed = parser.read().name
    name = typed and typed.partition("=")[0]  # as a setting is written
    with exit_on_user_error():
        if name is None:
            for section in SECTIONS:
                names = (key.name.partition(".")[2] for key in keys_of(section))
                show(section, about(section), ", ".join(names))
            say("\npython -m sft.config SECTION explains the keys of a section, python -m sft.config KEY one of them.")
        elif name in SECTIONS:
            say(about(name))
            for key in keys_of(name):
                explain(key)
        else:
            found = [key for section in SECTIONS for key in keys_of(section) if is_named(key, name)]
            if not found:
                raise UserError(f"{name}: no such section or key; {as_setting(name, '')}")
            for key in found:
                explain(key)


def is_named(key: Key, name: str) -> bool:
    """Whether `name` is the key's, with or without its section, or that of a mapping it stands in."""
    return name in (key.name, key.name.partition(".")[2]) or key.name.startswith(f"{name}.")


def explain(key: Key) -> None:
    """Print a key with its default and type, and below them what it means."""
    default = " (must be given)" if key.default is None else f"={key.default}"
    if (key.default or "").startswith("left to"):
        default = f" ({key.default})"
    show(f"{key.name}{default}    {key.kind}", key.text)


def show(head: str, *texts: str) -> None:
    """Print a line, and below it texts as wide as the terminal is."""
    say(head)
    width = min(shutil.get_terminal_size().columns, 120)
    for text in texts:
        for line in textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False):
            say(line)


if __name__ == "__main__":
    main()
