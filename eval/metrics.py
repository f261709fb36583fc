"""What is measured on one answer, as pure functions. No torch here.

Text metrics take the answer and one reference or several; with several, the score is that of the best one.
They compare `eval.text.normalise`d texts. An answer or reference that is empty after normalisation scores 0
in every text metric, even against another empty text: saying nothing is never right.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version

from rapidfuzz.distance import LCSseq

from eval.text import NORMALISATION, TOKENIZER, normalise, tokens
from sft.records import Prediction

References = str | Sequence[str]
RowScores = dict[str, float | None]


def rouge_l(answer: str, references: References) -> float:
    """ROUGE-L F measure over MeCab tokens, 0–1.

    LCS is the length of the longest common subsequence of tokens; precision = LCS / tokens of the answer,
    recall = LCS / tokens of the reference, score = 2·precision·recall / (precision + recall)
    = 2·LCS / (tokens of both). 0 when nothing is shared. Equal to rouge_score's `rougeL.fmeasure`, given
    the same tokens (Lin 2004, W04-1013, with beta = 1).
    """
    answer_tokens = tokens(answer)
    return max((_rouge_l(answer_tokens, tokens(reference)) for reference in _several(references)), default=0.0)


def character_f1(answer: str, references: References) -> float:
    """F1 of the two bags of characters, 0–1, spaces included.

    shared = Σ over characters of min(count in answer, count in reference);
    score = 2·shared / (characters of both). 0 when nothing is shared. The order of the characters does not
    count: 1981年7月10日 and 1987年10月1日 score 1. The definition of JGLUE's official JSQuAD evaluation on
    normalised text, except that two empty texts score 0 (there: 1).
    """
    answer_characters = Counter(normalise(answer))
    return max((_bag_f1(answer_characters, Counter(normalise(r))) for r in _several(references)), default=0.0)


def exact_match(answer: str, references: References) -> float:
    """1 when the normalised answer is one of the normalised references, else 0. Empty answers score 0.

    The normalisation is JSQuAD's, after NFKC.
    """
    normalised = normalise(answer)
    return float(bool(normalised) and any(normalised == normalise(r) for r in _several(references)))


def gold_contained(answer: str, references: References) -> float:
    """1 when a normalised reference stands in the normalised answer as it is, else 0.

    A reference that is empty after normalisation is contained in nothing.
    """
    normalised = normalise(answer)
    golds = (normalise(reference) for reference in _several(references))
    return float(any(gold and gold in normalised for gold in golds))


def reference_bits_per_character(nll: float | None, reference: str) -> float | None:
    """Surprise of the model at the reference: NLL / (ln 2 · characters of the reference), bits, ≥ 0.

    `nll` is Σ −ln p over the reference's tokens, in nats. Comparable between tokenizers because it is per
    character. Lower is better. None when `nll` was not measured or is not finite, or the reference is empty.
    """
    if nll is None or not math.isfinite(nll) or not reference:
        return None
    return nll / (math.log(2) * len(reference))


def length_ratio(answer: str, reference: str) -> float | None:
    """Characters of the answer / characters of the reference, whitespace at the ends left out, ≥ 0.

    1 is as long as the reference, an empty answer 0. None when the reference is empty.
    """
    characters = len(reference.strip())
    return len(answer.strip()) / characters if characters else None


def ended(finish_reason: str) -> float:
    """1 when the answer ended with the end-of-text token, 0 when it was cut at the limit or failed."""
    return float(finish_reason == "eos")


TEXT_METRICS: dict[str, Callable[[str, References], float]] = {
    "rouge_l": rouge_l,
    "character_f1": character_f1,
    "exact_match": exact_match,
    "gold_contained": gold_contained,
}
"""Metrics that compare the answer with the references, in report order."""

METRICS = (*TEXT_METRICS, "reference_bits_per_character", "eos_rate", "length_ratio")
"""Keys of all metrics, in the order of the results."""


def row_scores(prediction: Prediction) -> RowScores:
    """Metric → score of one answer; None where the metric's input was not measured.

    An answer that failed counts as empty, whatever text it left.
    """
    example = prediction.example
    answer = "" if prediction.finish_reason == "error" else prediction.text
    return {
        **text_scores(answer, example.references),
        "reference_bits_per_character": reference_bits_per_character(prediction.reference_nll, example.output),
        "eos_rate": ended(prediction.finish_reason),
        "length_ratio": length_ratio(answer, example.output),
    }


def text_scores(answer: str, references: References) -> RowScores:
    """Text metric → score."""
    return {key: metric(answer, references) for key, metric in TEXT_METRICS.items()}


def signatures() -> dict[str, str]:
    """Metric → how it is computed: normalisation, tokenizer, dictionary, versions, references, mean."""
    text = f"norm:{NORMALISATION}"
    mecab = f"{TOKENIZER}|fugashi:{version('fugashi')}|dict:unidic-lite-{version('unidic-lite')}"
    best = "refs:best-of-all|empty:0|mean:over-rows"
    pooled = "mean:weighted-by-reference-characters"
    return {
        "rouge_l": f"rougeL-f1|{text}|tok:{mecab}|lcs:rapidfuzz-{version('rapidfuzz')}|{best}",
        "character_f1": f"bag-of-characters-f1|{text}|tok:character|{best}",
        "exact_match": f"equal|{text}|{best}",
        "gold_contained": f"reference-is-substring-of-answer|{text}|{best}",
        "reference_bits_per_character": f"nll/ln2/characters|norm:none|refs:output|{pooled}",
        "eos_rate": "ended-with-end-of-text|mean:over-rows",
        "length_ratio": f"answer/reference|tok:character|norm:strip|refs:output|{pooled}",
    }


def _several(references: References) -> Sequence[str]:
    return (references,) if isinstance(references, str) else references


def _rouge_l(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return 0.0
    # Numbers, because rapidfuzz compares hashes of strings, and those can collide.
    number: dict[str, int] = {}
    first = [number.setdefault(token, len(number)) for token in answer]
    second = [number.setdefault(token, len(number)) for token in reference]
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))


def _bag_f1(answer: Counter[str], reference: Counter[str]) -> float:
    if not answer or not reference:
        return 0.0
    return 2 * (answer & reference).total() / (answer.total() + reference.total())
