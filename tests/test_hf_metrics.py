"""The `evaluate.Metric` modules load by path without a network and agree with `eval.metrics`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.metrics.overlap import character_f1, exact_match, rouge_l

ROOT = Path(__file__).parents[1]
ANSWERS = ["東京です。", "大阪", ""]
SINGLE = ["東京", "大阪。", "京都"]
SEVERAL = [["東京", "東京です"], ["京都", "大阪"], ["京都", "奈良"]]

# Another process, because evaluate reads its cache folders from the environment when it is imported.
PROGRAM = """
import json, sys
import evaluate
answers, single, several = json.load(sys.stdin)
out = {}
for name in ("rouge_l", "character_f1", "exact_match"):
    metric = evaluate.load(f"eval/hf/{name}_ja.py", experiment_id=name, keep_in_memory=True)
    out[name] = [metric.compute(predictions=answers, references=r)[name] for r in (single, several)]
print(json.dumps(out))
"""


def test_modules_load_offline_and_agree_with_the_functions(tmp_path: Path) -> None:
    pytest.importorskip("evaluate", reason="the evaluate package is not installed")
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | offline,
        input=json.dumps([ANSWERS, SINGLE, SEVERAL]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    for function in (rouge_l, character_f1, exact_match):
        expected = [
            sum(function(a, r) for a, r in zip(ANSWERS, references, strict=True)) / 3
            for references in (SINGLE, SEVERAL)
        ]
        assert found[function.__name__] == pytest.approx(expected)
