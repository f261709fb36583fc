"""Studies' row scores become results.json, tables.md and figures: all numbers anew, from what is committed.

    python -m studies.context_qa.report studies/context_qa/gemma3-270m.yaml … --output docs/context-qa

No torch here.
"""

from pathlib import Path

from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from studies.context_qa.plan import load_study
from studies.context_qa.report.write import write_report


def main() -> None:
    """Report of the studies that are named."""
    parser = command_parser(__doc__, "python -m studies.context_qa.report")
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="a study's YAML file")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the report")
    arguments = parser.read()
    with exit_on_user_error("interrupted"):
        print(f"{write_report(list(map(load_study, arguments.studies)), arguments.output)}: written")


if __name__ == "__main__":
    main()
