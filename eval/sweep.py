"""`python -m eval sweep`: what a sweep answered, scored and reported. No torch here."""

import dataclasses
from pathlib import Path

from rich.console import Console

from eval.border import from_json, json_text
from eval.render.markdown import render_markdown
from eval.report.sweep import print_sweep, sweep_blocks
from eval.scoring.sweep import SWEEP_VERSION, SweepResults, load_sweep, score_sweep
from sft.page.blocks import Block, Heading
from sft.page.html import render_html
from sft.system.errors import UserError, say
from sft.system.files import read_json, write_whole
from sft.system.texts import language, text

RESULTS = "sweep_results.json"


def report_sweep(directory: Path, resamples: int = 10_000, seed: int = 0) -> None:
    """Score the sweep in `directory`; write sweep_results.json, sweep.md and sweep.html there, print the table."""
    sweep = score_sweep(load_sweep(directory), resamples, seed)
    blocks: list[Block] = [Heading(1, text("sweep.title")), *sweep_blocks(sweep)]
    texts = {"sweep.md": render_markdown(blocks), "sweep.html": render_html(blocks, language())}
    for name, content in ({RESULTS: json_text(dataclasses.asdict(sweep), indent=1)} | texts).items():
        write_whole(directory / name, content)
    print_sweep(sweep, Console())
    say(text("sweep.written", path=directory / "sweep.html"))


def read_sweep_results(directory: Path) -> SweepResults | None:
    """What `report_sweep` left in `directory`, or None when there is nothing of this version."""
    path = directory / RESULTS
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema_version") != SWEEP_VERSION:
        return None
    try:
        return from_json(found, SweepResults)
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); `python -m eval sweep {directory}` makes it again") from None
