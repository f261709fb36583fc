"""Runs in a Python of its own, with the originals: reads texts and pairs as JSON, writes what these make of them."""

import json
import sys
import types
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import neologdn
from fuzzywuzzy import fuzz

inside = Path(find_spec("flexeval").submodule_search_locations[0])
for name in ("", ".core", ".core.metric", ".core.language_model", ".core.string_processor"):
    package = types.ModuleType(f"flexeval{name}")  # whose own __init__ would import vllm, litellm and torch
    package.__path__ = [str(inside.joinpath(*name.split(".")))]
    sys.modules[package.__name__] = package
from flexeval.core.string_processor.base import StringProcessor  # noqa: E402

sys.modules["flexeval.core.string_processor"].StringProcessor = StringProcessor
from flexeval.core.metric.char_f1 import CharF1  # noqa: E402


def llm_jp_eval(answer: str, reference: str) -> float:
    """What llm-jp-eval, which is in no registry, computes around its one call."""
    first, second = (unicodedata.normalize("NFKC", text) for text in (answer.split("\n\n")[0].strip(), reference))
    return fuzz.token_sort_ratio(first, second) / 100


given = json.load(sys.stdin)
answers, references = zip(*given["pairs"], strict=True)
found = CharF1().evaluate(list(answers), [[reference] for reference in references])
json.dump(
    {
        "neologdn": [neologdn.normalize(text) for text in given["texts"]],
        "llm_jp_eval": [llm_jp_eval(*pair) for pair in given["pairs"]],
        "flexeval": [row["char_f1"] for row in found.instance_details],
    },
    sys.stdout,
)
