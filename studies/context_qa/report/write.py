"""Studies' row scores become results.json, tables.md and figures. No torch here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.system.files import write_whole
from studies.context_qa.plan import Study
from studies.context_qa.report.analysis import analyse, to_json
from studies.context_qa.report.figures import figures
from studies.context_qa.report.material import load
from studies.context_qa.report.tables import tables

SCHEMA_VERSION = 2


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
