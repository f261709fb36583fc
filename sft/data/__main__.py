"""Look at rows before anything is trained on them: what would be read, what not, and what is worth a look.

    python -m sft.data faq.xlsx                      any file, directory or hub data set that data.path takes
    python -m sft.data faq.csv "data.columns={instruction: 件名, output: 対応}"
    python -m sft.data faq.csv --output rows.jsonl   the cleaned rows, as training would see them

No model, tokenizer or GPU is used. `python -m sft.config data` explains the settings.
"""

import re
from pathlib import Path

from sft.config.hints import as_setting
from sft.config.load import data_section
from sft.overview.request import check_request
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.texts import speak

OVERRIDE = r"[a-z_]+(\.[a-z_]+)+="


def main() -> None:
    """Read the command line, then the rows."""
    parser = command_parser(__doc__, "python -m sft.data", as_setting)
    parser.add_argument("words", nargs="+", metavar="FILE|data.key=value", help="what is read, and as what")
    parser.add_argument("--output", type=Path, metavar="rows.jsonl", help="write the cleaned rows into this new file")
    parser.add_argument("--lang", choices=("ja", "en"), help="the page's language; the locale's if left out")
    arguments = parser.read()
    overrides = [word for word in arguments.words if re.match(OVERRIDE, word)]
    paths = [word for word in arguments.words if word not in overrides]
    if not paths and not any(word.startswith("data.path=") for word in overrides):
        parser.error("name at least one file, directory or hub data set")
    speak(arguments.lang)
    with exit_on_user_error():
        section = data_section(paths, overrides)
        check_request(section, arguments.output)
        from sft.overview.overview import overview

        overview(section, arguments.output)


if __name__ == "__main__":
    main()
