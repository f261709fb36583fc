"""Under which penalty were somebody's printed answers made? What recurs in them, against the study's own answers.

    python -m studies.context_qa.forensics studies/context_qa/gemma3-270m.yaml ARTICLE.md

ARTICLE.md has a line for each answer, `1. question → answer`, with `E` behind an answer that ended by itself and
`question with a context that says context` where there was one. What is counted is written to article.json among the
study's scores, and no text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.predictions import Prediction
from eval.scoring.rows import rounded_number
from eval.statistics.estimates import FLIPS, Array
from sft.data.records import Example
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error
from sft.system.files import read_bytes, read_json, write_whole
from studies.context_qa.measures import measure
from studies.context_qa.plan import ROWS, Study, load_study
from studies.context_qa.report.material import COLUMNS, Material

MEASURED = ("characters", "tokens_repeated", "words_repeated", "about_the_task")
REPEATED = ("tokens_repeated", "words_repeated")
LEAST = 20
"""Answers of about the same length that there have to be."""
_ANSWER = re.compile(
    r"^(\d+)\. (.+?)(?: with a context that says (.+?))? → (.+?)( E|…? ?\(cut [^)]*\))?$", re.MULTILINE
)
_NUMBERED = re.compile(r"^(\d+)\. ", re.MULTILINE)


def main() -> None:
    """Count what is in the printed answers."""
    parser = command_parser(__doc__, "python -m studies.context_qa.forensics")
    parser.add_argument("study", type=Path, help="a study's YAML file: whose tokenizer counts, and where it is kept")
    parser.add_argument("article", type=Path, help="the printed answers")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the study's file")
    arguments = parser.read()
    with exit_on_user_error("interrupted"):
        print(f"{write_article(load_study(arguments.study, arguments.overrides), arguments.article)}: written")


def write_article(study: Study, path: Path) -> Path:
    """Write what the answers in the file at `path` measure. Raises UserError when none is found in it."""
    from sft.config.load import load_config
    from sft.plan.prepare import read_tokenizer
    from sft.prompt.encode import encode_answer

    text = read_bytes(path).decode(errors="replace")
    found = _ANSWER.findall(text)
    numbered = _NUMBERED.findall(text)
    if unread := [number for number in numbered if number not in [one[0] for one in found]]:
        raise UserError(
            f"{path}: answer {unread[0]} is not understood; write each on a line, as 1. question → answer E"
        )
    if not found:
        raise UserError(f"{path}: holds no answer; write each on a line, as 1. question → answer E")
    tokenizer, _ = read_tokenizer(load_config(study.config, study.common))
    answers = []
    for number, question, context, text, end in found:
        row = Example(number, question, context, "", "closed_qa" if context else "open_qa")
        ended = end == " E"
        answer = Prediction("article", row, "", text, "eos" if ended else "length", 0, 0, {})
        measured = measure(answer, "dolly", lambda said: encode_answer(tokenizer, said))
        answers.append({"group": row.group, "ended": ended} | {key: _short(measured[key]) for key in MEASURED})
    study.article_answers.parent.mkdir(parents=True, exist_ok=True)
    write_whole(study.article_answers, json.dumps(answers, indent=1) + "\n")
    return study.article_answers


def compared_to_article(material: Material) -> dict[str, Any] | None:
    """Decoding → what recurs in the article's answers, and in answers of its training of about their length and group.

    p: how often answers drawn from the study's, one for each of the article's, recur in the mean at least as far on the
    rarer side of the article's mean, twice that; below .05 the decoding is not `compatible`. None without the file.
    Tokens are those of the study's model, not the article's: what a token is, differs.
    """
    study = material.study
    if not study.article_answers.is_file():
        return None
    article = read_json(study.article_answers)
    found = {name: _against(material, article, name) for name in study.decodings}
    return {"answers": article, "decodings": {name: one for name, one in found.items() if one}}


def _against(material: Material, article: Sequence[Mapping[str, Any]], decoding: str) -> dict[str, Any] | None:
    pools = [(one, pool) for one in article if len(pool := _similar(material, one, decoding)) >= LEAST]
    if not pools:
        return None
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {"answers": len(pools), "similar": [len(pool) for _, pool in pools]}
    for key in REPEATED:
        columns = [pool[:, COLUMNS.index(key)] for _, pool in pools]
        seen = float(np.mean([one[key] for one, _ in pools]))
        drawn = np.mean([generator.choice(column[~np.isnan(column)], FLIPS) for column in columns], axis=0)
        rarer = min((drawn >= seen).sum(), (drawn <= seen).sum())
        p = min(1.0, 2 * (1 + float(rarer)) / (1 + FLIPS))
        found[key] = {"article": _short(seen), "study": _short(float(drawn.mean())), "p": rounded_number(p)}
    found["compatible"] = all(found[key]["p"] >= 0.05 for key in REPEATED)
    return found


def _similar(material: Material, one: Mapping[str, Any], decoding: str) -> Array:
    """The tables of the article's training's answers to rows of the group, of half to twice the length; first seed."""
    study, tables = material.study, [np.empty((0, len(COLUMNS)))]
    for name in (rows for rows in ROWS if rows in study.rows and not study.rows[rows].shots):
        table = material.tables.get((study.article, name, decoding), {}).get(study.seeds[0])
        if table is not None:
            at = material.rows[name].scopes.get(one["group"], [])
            lengths = table[at, COLUMNS.index("characters")]
            fits = (lengths >= one["characters"] / 2) & (lengths <= one["characters"] * 2)
            tables.append(table[at][fits])
    return np.vstack(tables)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
