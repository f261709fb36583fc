"""Metrics of other evaluations give what those give: values that the originals gave, and the originals run again."""

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eval.metrics.catalogue import BY_KEY
from eval.metrics.published import edit_ratio, flexeval_char_f1, llm_jp_eval_char_f1, neologdn, stability_f1
from sft.data.records import Example

HERE = Path(__file__).parent
MADE, *ROWS = map(json.loads, (HERE / "published_metrics.jsonl").read_text(encoding="utf-8").splitlines())
"""Answers and references of our own writing, with what the programs named in the first line made of them."""
KEYS = ("jglue_exact_match", "jglue_f1", "llm_jp_eval_char_f1", "flexeval_char_f1", "stability_f1")
ORIGINALS = (
    "fuzzywuzzy==0.18.0", "python-Levenshtein==0.23.0", "neologdn==0.5.6", "loguru", "flexeval==0.18.3",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["answer"].strip()[:12])
def test_metrics_are_those_of_their_authors(row: Mapping[str, Any]) -> None:
    first, *_ = references = row["references"]
    example = Example("1", "問い", "", first, "", answers=tuple(references))
    found = {key: BY_KEY[key].measure_text(row["answer"], example) for key in KEYS}
    assert found == pytest.approx({key: row[key] for key in KEYS}, abs=1e-8)


def test_one_name_is_several_metrics() -> None:
    """Sorted clauses make two answers equal whose texts differ by a third; who made the values is said."""
    answer, reference = "赤い屋根、白い壁、青い扉", "青い扉、赤い屋根、白い壁"
    assert llm_jp_eval_char_f1(answer, reference) == 1
    assert flexeval_char_f1(answer, [reference]) == 0.67
    assert stability_f1(answer, [reference]) == 1
    assert MADE["made_with"].keys() == {"jglue", "llm_jp_eval", "flexeval", "stability"}
    assert len(ROWS) >= 25


@pytest.mark.slow
def test_the_originals_say_the_same_of_thousands_of_texts(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", *ORIGINALS, "Levenshtein==0.23.0", "rapidfuzz"],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"the originals cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    draw = random.Random(0)
    letters = "あアガか゛ﾞﾟｶﾊッーｰ─-−–~〜 　abé*AZ19０Ａ、。「（)・！…”’¥①日東京都山メートル,．\n％＂※"
    texts = ["".join(draw.choices(letters, k=draw.randrange(13))) for _ in range(20_000)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    given = json.dumps({"texts": texts, "pairs": pairs})
    script = HERE / "published_originals.py"
    output = subprocess.run([python, script], input=given, capture_output=True, text=True, check=True).stdout
    originals = json.loads(output)
    assert [neologdn(text) for text in texts] == originals["neologdn"]
    assert [flexeval_char_f1(answer, [reference]) for answer, reference in pairs] == originals["flexeval"]
    assert [edit_ratio(*pair) for pair in pairs] == originals["flexeval"]
    assert [llm_jp_eval_char_f1(*pair) for pair in pairs] == originals["llm_jp_eval"]
