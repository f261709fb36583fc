"""What a study answered becomes results.json, tables.md and figures in its directory report/. No torch here."""

from pathlib import Path
from typing import Any

from sft.run.manifest import FinishedManifest, read_manifest
from sft.system.files import write_whole
from studies.context_qa.analysis import analyse, to_json
from studies.context_qa.answers import load
from studies.context_qa.figures import figures
from studies.context_qa.plan import Study
from studies.context_qa.tables import tables


def write_report(study: Study) -> Path:
    """Score what was answered and write the report; returns its directory. Raises UserError when nothing was."""
    results = analyse(load(study), {name: _training(study.run(*which)) for name, which in study.trained().items()})
    directory = study.root / "report"
    directory.mkdir(parents=True, exist_ok=True)
    drawn = figures(results)
    for figure in drawn:
        write_whole(directory / f"{figure.name}.svg", figure.svg + "\n")
        write_whole(directory / f"{figure.name}.png", figure.png)
    write_whole(directory / "results.json", to_json(results))
    write_whole(directory / "tables.md", tables(results, drawn))
    return directory


def _training(run: Path) -> dict[str, Any] | None:
    """What a finished training's manifest tells; None without one."""
    if not (run / "manifest.json").is_file():
        return None
    manifest = read_manifest(run)
    if not isinstance(manifest, FinishedManifest):
        return None
    return {
        "rows": manifest.rows.train,
        "truncation": manifest.rows.truncation,
        "steps": manifest.steps,
        "seconds": manifest.seconds,
        "device": manifest.device,
        "git_commit": manifest.environment.git_commit,
        "packages": manifest.environment.packages,
    }
