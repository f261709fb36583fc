"""Every metric of one row, by its key in the results. No torch here."""

from importlib.metadata import version

from eval.metrics.behaviour import distinct_2, ended, length_ratio, particle_share, punctuation_share, rep_4
from eval.metrics.correctness import KINDS, facts_recall, unsupported_facts
from eval.metrics.grounding import extraction, katakana_support, noun_support, number_support
from eval.metrics.reference import TEXT_METRICS, RowScores, context_gain, reference_bits_per_character, text_scores
from eval.metrics.text import NORMALISATION, TOKENIZER
from eval.predictions import Prediction
from sft.data.records import Example

LIKELIHOOD = ("reference_bits_per_character", "context_gain")
RECALL = ("facts_recall", *(f"{kind}_recall" for kind in KINDS))
UNSUPPORTED = ("unsupported_facts", *(f"unsupported_{kind}" for kind in KINDS))
GROUNDING = ("coverage", "density", "noun_support", "number_support", "katakana_support")
STYLE = ("rep_4", "distinct_2", "particle_share", "punctuation_share")
METRICS = (
    *TEXT_METRICS,
    *LIKELIHOOD,
    *RECALL,
    *UNSUPPORTED,
    *GROUNDING,
    "eos_rate",
    "length_ratio",
    *STYLE,
    "training_overlap",
)
"""Keys of all metrics, in the order of the results."""

REFERENCE_METRICS = (*UNSUPPORTED, *GROUNDING, *STYLE)
"""Keys of the metrics that need no reference, and are measured on the references themselves, too."""

WEIGHTED = ("reference_bits_per_character", "context_gain", "length_ratio")
"""Ratios to the reference's characters: their mean is a ratio of sums.

Unweighted, a handful of two-character references would decide the mean of such a ratio.
"""


def row_scores(prediction: Prediction) -> RowScores:
    """Metric → score of one answer; None where the metric's input was not measured or the row has none.

    An answer that failed counts as empty, whatever text it left.
    """
    example = prediction.example
    answer = "" if prediction.finish_reason == "error" else prediction.text
    without, given = prediction.reference_nll_without_context, prediction.reference_nll
    scores: RowScores = {
        **text_scores(answer, example.references),
        "reference_bits_per_character": reference_bits_per_character(given, example.output),
        "context_gain": context_gain(without, given, example.output) if has_context(example) else None,
        **{
            key: facts_recall(answer, example.references, kind)
            for key, kind in zip(RECALL, (None, *KINDS), strict=True)
        },
        **own_scores(answer, example),
        "eos_rate": ended(prediction.finish_reason),
        "length_ratio": length_ratio(answer, example.output),
        "training_overlap": prediction.training_overlap,
    }
    return {metric: scores[metric] for metric in METRICS}


def own_scores(text: str, example: Example) -> RowScores:
    """`REFERENCE_METRICS` → score of a text as an answer to the example, without looking at its reference."""
    scores: RowScores = dict.fromkeys(REFERENCE_METRICS)
    if has_context(example):
        found = extraction(text, example.input)
        sources = (example.input, example.instruction)
        kinds = zip(UNSUPPORTED, (None, *KINDS), strict=True)
        scores |= {key: unsupported_facts(text, sources, kind) for key, kind in kinds}
        scores |= {
            "coverage": found and found.coverage,
            "density": found and found.density,
            "noun_support": noun_support(text, example.input),
            "number_support": number_support(text, example.input),
            "katakana_support": katakana_support(text, example.input),
        }
    return scores | {
        "rep_4": rep_4(text),
        "distinct_2": distinct_2(text),
        "particle_share": particle_share(text),
        "punctuation_share": punctuation_share(text),
    }


def has_context(example: Example) -> bool:
    """Whether the row has a context, whatever its category."""
    return bool(example.input.strip())


def signatures() -> dict[str, str]:
    """Metric → how it is computed: normalisation, tokenizer, dictionary, versions, references, mean."""
    text = f"norm:{NORMALISATION}"
    mecab = f"{TOKENIZER}|fugashi:{version('fugashi')}|dict:unidic-lite-{version('unidic-lite')}"
    best = "refs:best-of-all|empty:0|mean:over-rows"
    pooled = "mean:weighted-by-reference-characters"
    rapidfuzz, sacrebleu = version("rapidfuzz"), version("sacrebleu")
    # Where a row has nothing to measure (no context, no fact, no token), it is missing, not 0.
    measured, context = "empty:missing|mean:over-rows", "rows:with-context"
    kinds = ("numbers+dates+names+katakana", *KINDS)
    facts = f"facts:regex+固有名詞|{text}|tok:{mecab}"
    found = {
        "rouge_l": f"rougeL-f1|{text}|tok:{mecab}|lcs:rapidfuzz-{rapidfuzz}|{best}",
        "character_f1": f"bag-of-characters-f1|{text}|tok:character|{best}",
        "edit_similarity": f"indel-similarity|{text}|tok:character|rapidfuzz:{rapidfuzz}|{best}",
        "chrf": f"chrF2|nc:6|nw:0|{text}|sacrebleu:{sacrebleu}|{best}",
        "exact_match": f"equal|{text}|{best}",
        "gold_contained": f"reference-is-substring-of-answer|{text}|{best}",
        "reference_bits_per_character": f"nll/ln2/characters|norm:none|refs:output|{pooled}",
        "context_gain": f"(nll-without-context−nll)/ln2/characters|norm:none|refs:output|{context}|{pooled}",
        **{
            key: f"share-of-reference-facts-in-answer|kind:{kind}|{facts}|refs:best-of-all|{measured}"
            for key, kind in zip(RECALL, kinds, strict=True)
        },
        **{
            key: f"share-of-answer-facts-not-in-context-or-question|kind:{kind}|{facts}|{context}|{measured}"
            for key, kind in zip(UNSUPPORTED, kinds, strict=True)
        },
        "coverage": f"extractive-coverage|tok:character|shortest:4|{text}|{context}|{measured}",
        "density": f"extractive-density|tok:character|shortest:4|{text}|{context}|{measured}",
        "noun_support": f"share-of-nouns-in-context|{text}|tok:{mecab}|{context}|{measured}",
        "number_support": f"share-of-numbers-and-dates-in-context|{facts}|{context}|{measured}",
        "katakana_support": f"share-of-katakana-words-in-context|{text}|{context}|{measured}",
        "eos_rate": "ended-with-end-of-text|mean:over-rows",
        "length_ratio": f"answer/reference|tok:character|norm:strip|refs:output|{pooled}",
        "rep_4": f"repeated-4-grams/4-grams|{text}|tok:{mecab}|{measured}",
        "distinct_2": f"different-bigrams/bigrams|{text}|tok:{mecab}|{measured}",
        "particle_share": f"助詞/tokens|{text}|tok:{mecab}|{measured}",
        "punctuation_share": f"unicode-P/characters|norm:whitespace-dropped|{measured}",
        "training_overlap": "longest-shared-passage|norm:none|prompt-passages-of-8-cut-out|mean:over-rows",
    }
    return {metric: found[metric] for metric in METRICS}
