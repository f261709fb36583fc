"""List the runs of a directory: how far they are, what they trained on, in what they differ, how they score.

    python -m sft.runs                 those in runs/
    python -m sft.runs elsewhere       those in another directory

Nothing is loaded, and nothing is changed.
"""

from pathlib import Path

from sft.run.directory import RUNS
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.texts import speak


def main() -> None:
    """Read the command line, then the runs."""
    parser = command_parser(__doc__, "python -m sft.runs")
    parser.add_argument("directory", nargs="?", type=Path, default=RUNS, help="where the runs are; runs/ if left out")
    parser.add_argument("--lang", choices=("ja", "en"), help="the table's language; the locale's if left out")
    arguments = parser.read()
    speak(arguments.lang)
    with exit_on_user_error():
        from sft.runs.listing import read_runs
        from sft.runs.page import show

        show(read_runs(arguments.directory))


if __name__ == "__main__":
    main()
