"""The study's results as Markdown that explains itself. No torch here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eval.predictions import BASE
from eval.render.blocks import Block, Bullets, Heading, Table, paragraph
from eval.render.markdown import render_markdown
from eval.render.numbers import NOTHING, number, with_interval
from sft.data.records import CONTEXT
from studies.context_qa import sections
from studies.context_qa.estimates import interval_of
from studies.context_qa.figures import Drawn
from studies.context_qa.sections import NOT_RUN, ROWS_NAMES, Cells, Results, outcome_name, p_cell, shown


def tables(results: Results, figures: Sequence[Drawn]) -> str:
    """The whole document; each figure stands after the section of its name."""
    drawn = {figure.name: figure for figure in figures}
    parts: dict[str, list[Block]] = {
        "intro": _intro(results),
        "factorial": sections.factorial(results),
        "sweep": sections.sweep(results),
        "dose": sections.dose(results),
        "losses": sections.losses(results),
        "likelihood": _likelihood(results),
        "behaviour": sections.behaviour(results),
        "arms": _arms(results),
    }
    texts = []
    for name, blocks in parts.items():
        texts.append(render_markdown(blocks))
        if name in drawn:
            texts.append(f"![{drawn[name].caption}]({name}.svg)\n\n*{drawn[name].caption}*\n")
    return "\n".join(texts)


def _intro(results: Results) -> list[Block]:
    study, rows = results["study"], results["rows"]
    seeds = study["seeds"]
    listed = "; ".join(
        f"{ROWS_NAMES[name]}: {found['total']} rows, {found['contexts']} contexts "
        f"({', '.join(f'{category} {n}' for category, n in found['categories'].items())})"
        for name, found in rows.items()
    )
    spread = (
        f"Seed {seeds[0]} alone was trained, so no interval covers what another seed would give."
        if len(seeds) == 1
        else f"Seeds {', '.join(map(str, seeds))}: a row's score is the mean over them, and their range stands beside."
    )
    notes = [
        f"Rows. {listed}.",
        "[a, b] are 95% bootstrap intervals over contexts (rows about one text are drawn together), "
        f"{results['settings']['resamples']:,} resamples, seed {results['settings']['seed']}. Differences are "
        "paired: both sides answered the same rows.",
        "p is two-sided, by sign flips over contexts. p (Holm) is corrected for all headline comparisons at once.",
        spread,
        "Gold contained: an accepted answer stands in the answer; long answers have an advantage there, so read it "
        "beside character F1 and the lengths.",
    ]
    if results["missing"]:
        shown_missing = ", ".join(results["missing"][:12]) + (", …" if len(results["missing"]) > 12 else "")
        notes.append(f"{NOT_RUN.capitalize()}: {len(results['missing'])} of the planned files: {shown_missing}.")
    return [
        Heading(1, "Why context questions fail after tuning: the numbers"),
        paragraph(
            f"Configuration {study['config']}. The article's training is {study['article']!r}, decoded with "
            f"{study['article_decoding']!r}; the recipe's is {study['recipe']!r}, decoded with "
            f"{study['recipe_decoding']!r}. {BASE!r} is the model before tuning, with the same prompts."
        ),
        Bullets(tuple(notes)),
        Heading(2, "In short"),
        Bullets(tuple(_verdicts(results))),
        Heading(2, "What was trained"),
        _trainings(results),
        Heading(2, "Decodings"),
        paragraph(
            "As they took effect; without repetition_penalty there is none. A decoding that samples was drawn once a "
            "row, so no interval covers another draw."
        ),
        Table(["name", "settings"], [[name, _settings(results, name)] for name in study["decodings"]], left=2),
    ]


def _verdicts(results: Results) -> list[str]:
    """One sentence an outcome, made of the headline numbers."""
    study = results["study"]
    lines = []
    for key, found in results["factorial"].items():
        effects = found["effects"]
        before = found["cells"][study["article"]][study["article_decoding"]]
        after = found["cells"][study["recipe"]][study["recipe_decoding"]]
        if effects["cell"] is None:
            lines.append(f"{outcome_name(key)}: {NOT_RUN}.")
            continue
        times = found["ratio"]["mean"]
        factor = "" if times is None else f", {number(times, digits=1)} times as much"
        lines.append(
            f"{outcome_name(key)}: {number(before['mean'])} → {number(after['mean'])}{factor} (difference "
            f"{_words(effects['cell'])}). Decoding accounts for {_words(effects['decoding'])}, training for "
            f"{_words(effects['training'])}; together they are the difference."
        )
    return lines


def _words(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return f"({NOT_RUN})"
    return with_interval(interval_of(found), signed=True)


def _trainings(results: Results) -> Table:
    rows: list[Cells] = []
    for name, found in results["trainings"].items():
        arm = name.rsplit("-", 1)[0]
        settings = " ".join(results["study"]["arms"][arm]) or "as configured"
        if found is None:
            rows.append([name, settings, *["not found"] * 5])
            continue
        cut = [_fates(found["truncation"], context) for context in (True, False)]
        minutes = NOTHING if found["seconds"] is None else f"{found['seconds'] / 60:.0f}"
        rows.append([name, settings, *cut, str(found["rows"]), str(found["steps"]), minutes])
    common = " ".join(results["study"]["overrides"])
    settings_of_all = f" (all: {common})" if common else ""
    header = ["training", f"settings{settings_of_all}", "context rows", "other rows", "rows", "steps", "minutes"]
    return Table(header, rows, left=4)


def _fates(truncation: Mapping[str, Mapping[str, int]], context: bool) -> str:
    """`79 whole, 228 end cut off`: what became of the training rows of the context categories, or of the others."""
    counts: Counter[str] = Counter()
    for category, found in truncation.items():
        if (category in CONTEXT) is context:
            counts.update(found)
    return ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items(), reverse=True)) or "none"


def _settings(results: Results, decoding: str) -> str:
    found = results["generation"].get(decoding)
    if found is None:
        return NOT_RUN
    return ", ".join(f"{key}={value}" for key, value in found.items())


def _likelihood(results: Results) -> list[Block]:
    return [
        Heading(2, "5. Free of decoding"),
        paragraph(
            "Nothing is generated here, so no decoding setting can change it. Bits a character of the reference "
            "given the prompt (lower is better); context gain: how many of them the context saves (higher is "
            "better). If tuning had unlearnt reading the context, the gain would fall. Differences are from the "
            "base model."
        ),
        *_by_arm(results["likelihood"], "− base"),
    ]


def _arms(results: Results) -> list[Block]:
    return [
        Heading(2, "7. Training arms, decoded greedily without a penalty"),
        paragraph(
            "Each training differs from the line above it in one thing, so the difference is what that one thing "
            "does: tuning as the article did, not cutting answers off, loss on the answer only, and so on "
            "(settings above). p of the difference alone, not corrected for their number."
        ),
        *_by_arm(results["arms"], "− line above"),
    ]


def _by_arm(found: Mapping[str, Any], against: str) -> list[Block]:
    rows: list[Cells] = []
    for key, by_arm in found.items():
        for arm, one in by_arm.items():
            change: Cells = (
                [shown(one["difference"], signed=True), p_cell(one["difference"])] if one["against"] else ["", ""]
            )
            rows.append([outcome_name(key), arm, shown(one["score"]), *change])
    return [Table(["outcome", "system", "score", against, "p"], rows, left=2, sectioned=True)]
