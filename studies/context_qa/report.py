"""Studies' row scores become results.json, tables.md and figures: all numbers anew, from what is committed.

    python -m studies.context_qa.report studies/context_qa/gemma3-270m.yaml … --output docs/context-qa

No torch here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.files import write_whole
from studies.context_qa.analysis import analyse, to_json
from studies.context_qa.figures import figures
from studies.context_qa.material import load
from studies.context_qa.plan import Study, load_study
from studies.context_qa.tables import tables

SCHEMA_VERSION = 2


def main() -> None:
    """Report of the studies that are named."""
    parser = command_parser(__doc__, "python -m studies.context_qa.report")
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="a study's YAML file")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the report")
    arguments = parser.read()
    with exit_on_user_error("interrupted"):
        print(f"{write_report(list(map(load_study, arguments.studies)), arguments.output)}: written")


def results_of(studies: Sequence[Study]) -> dict[str, Any]:
    """Every number, by the name of each study's model. Raises UserError for a study without scores."""
    return {
        "schema_version": SCHEMA_VERSION,
        "models": {Path(study.scores).name: analyse(load(study)) for study in studies},
    }


def write_report(studies: Sequence[Study], directory: Path) -> Path:
    """Write the report into the directory and return it. Raises UserError for a study without scores."""
    results = results_of(studies)
    directory.mkdir(parents=True, exist_ok=True)
    drawn = figures(results)
    for figure in drawn:
        write_whole(directory / f"{figure.name}.svg", figure.svg + "\n")
        write_whole(directory / f"{figure.name}.png", figure.png)
    write_whole(directory / "results.json", to_json(results))
    write_whole(directory / "tables.md", tables(results, drawn))
    return directory


if __name__ == "__main__":
    main()
