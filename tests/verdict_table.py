"""What every metric says of the adversarial pairs: the table in docs/evaluation.md.

.venv/bin/python tests/verdict_table.py --write
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from eval.metrics.catalogue import BY_KEY  # noqa: E402
from eval.metrics.metric import Metric  # noqa: E402
from sft.data.records import Example  # noqa: E402

DOCUMENT = ROOT / "docs" / "evaluation.md"
BEGIN, END = "<!-- tests/verdict_table.py writes this table -->\n", "<!-- and ends here -->\n"
KEYS = (
    "character_f1",
    "edit_similarity",
    "chrf",
    "rouge_l",
    "exact_match",
    "gold_contained",
    "facts_recall",
    "correct",
)
TUNED_ON = "that the rules were tuned on"
SETS = {TUNED_ON: "adversarial_pairs.jsonl", "written after": "adversarial_pairs_held_out.jsonl"}
RIGHT = 0.5
"""The score from which a metric counts as saying that an answer is right."""

Pair = dict[str, str | bool]


def pairs(name: str) -> list[Pair]:
    """Lines of {kind, question, context, reference, answer, right}."""
    with (ROOT / "tests" / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def says_right(metric: Metric, pair: Pair) -> bool:
    """Whether the metric says that the answer is right; nothing to measure is not."""
    row = Example("1", pair["question"], pair["context"], pair["reference"], "closed_qa")
    return (metric.of_text(pair["answer"], row) or 0.0) >= RIGHT


def hits(metric: Metric, found: list[Pair]) -> int:
    """Of how many pairs the metric says what is so."""
    return sum(says_right(metric, pair) == pair["right"] for pair in found)


def table() -> str:
    """Kinds of pairs by metric: of how many the verdict is the right one."""
    lines = [f"| kind of pair | pairs | {' | '.join(f'`{key}`' for key in KEYS)} |", "|---|--:|" + "--:|" * len(KEYS)]
    for title, name in SETS.items():
        found = pairs(name)
        by_kind = {kind: [pair for pair in found if pair["kind"] == kind] for kind in {p["kind"]: 1 for p in found}}
        rows = by_kind if title == TUNED_ON else {}
        for label, some in [*rows.items(), (f"**all {title}**", found)]:
            lines.append(f"| {label} | {len(some)} | {' | '.join(str(hits(BY_KEY[key], some)) for key in KEYS)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    if "--write" in sys.argv:
        DOCUMENT.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
