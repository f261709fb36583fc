"""Every metric there is, once. To add one, write its function and its entry in `METRICS`. No torch here."""

import functools
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from eval.metrics.behaviour import distinct_2, ended, length_ratio, particle_share, punctuation_share, ran_on, rep_4
from eval.metrics.correctness import KINDS, facts_recall, unsupported_facts
from eval.metrics.grounding import extraction, katakana_support, noun_support, number_support
from eval.metrics.likelihood import context_gain, reference_bits_per_character
from eval.metrics.metric import SECTIONS, Metric, Section
from eval.metrics.overlap import character_f1, chrf, edit_similarity, exact_match, gold_contained, rouge_l
from eval.metrics.published import flexeval_char_f1, jglue_exact_match, jglue_f1, llm_jp_eval_char_f1, stability_f1
from eval.metrics.text import NORMALISATION, TOKENIZER
from eval.metrics.verdict.correct import correct

_TEXT = f"norm:{NORMALISATION}"
_WORDS = f"tok:{TOKENIZER}|fugashi:{version('fugashi')}|dict:unidic-lite-{version('unidic-lite')}"
_MECAB = f"{_TEXT}|{_WORDS}"
_FACTS = f"facts:2:units+regex+固有名詞|{_MECAB}"
_RAPIDFUZZ = version("rapidfuzz")
_BEST = "refs:best-of-all"
_KINDS = dict(zip(KINDS, ("numbers", "dates", "names", "katakana words"), strict=True))
"""Kind of facts → what readers see."""

_grounded = functools.partial(Metric, section="grounding", needs_context=True, empty="missing")


def _compared(function: Callable[[str, Sequence[str]], float], **fields: Any) -> Metric:
    """What a function, whose name is the key, says of a text and the references."""
    return Metric(
        key=function.__name__, of_text=lambda text, row: function(text, row.references), needs_reference=True,
        floors=True, empty="0", **fields,
    )  # fmt: skip


def _published(function: Callable[[str, Sequence[str]], float], title: str, definition: str, **fields: Any) -> Metric:
    """What another evaluation's metric says, exactly as there."""
    return _compared(function, title=title, section="published", definition=definition, **fields)


def _supported(function: Callable[[str, str], float | None], title: str, definition: str) -> Metric:
    """What a function, whose name is the key, says of a text and the context."""
    key, of_text = function.__name__, lambda text, row: function(text, row.input)
    return _grounded(key=key, title=title, definition=definition, of_text=of_text)


def _style(function: Callable[[str], float | None], title: str, definition: str) -> Metric:
    """What a function, whose name is the key, says of a text alone."""
    key, of_text = function.__name__, lambda text, row: function(text)
    return Metric(key=key, title=title, section="style", definition=definition, of_text=of_text, empty="missing")


def _recall(kind: str | None = None) -> Metric:
    """The reference's facts that a text states: of one kind, or all."""
    return Metric(
        key=f"{kind or 'facts'}_recall",
        title=_KINDS[kind] if kind else "facts of the reference found",
        section="correctness",
        part_of="facts_recall" if kind else "",
        compared=kind is None,
        definition=f"share-of-reference-facts-in-answer|kind:{kind or '+'.join(_KINDS)}|{_FACTS}|{_BEST}",
        of_text=lambda text, row: facts_recall(text, row.references, kind),
        needs_reference=True,
        empty="missing",
    )


def _unsupported(kind: str | None = None) -> Metric:
    """A text's facts that neither context nor question states: of one kind, or all."""
    return _grounded(
        key=f"unsupported_{kind or 'facts'}",
        title=_KINDS[kind] if kind else "unsupported facts",
        place=1,
        part_of="unsupported_facts" if kind else "",
        lower_is_better=True,
        definition=f"share-of-answer-facts-not-in-context-or-question|kind:{kind or '+'.join(_KINDS)}|{_FACTS}",
        of_text=lambda text, row: unsupported_facts(text, (row.input, row.instruction), kind),
    )


CHARACTER_F1 = _compared(
    character_f1, title="character F1", section="overlap", place=-1, headline=True, compared=True,
    definition=f"bag-of-characters-f1|{_TEXT}|tok:character|{_BEST}",
)  # fmt: skip
GOLD_CONTAINED = _compared(
    gold_contained, title="gold contained", section="correctness", place=-1, headline=True, compared=True,
    binary=True, definition=f"reference-is-substring-of-answer|{_TEXT}|{_BEST}",
)  # fmt: skip
CORRECT = Metric(
    key="correct", title="correct by rules", section="correctness", place=-1, compared=True, binary=True,
    definition=f"states-facts-or-words,-not-denied-refused-guessed-or-exchanged|{_FACTS}|{_BEST}",
    of_text=lambda text, row: correct(text, row.references, row.instruction),
    needs_reference=True, floors=True, empty="0",
)  # fmt: skip
JGLUE_EXACT_MATCH = _published(
    jglue_exact_match, "exact match as JGLUE", f"equal|norm:lowercase+trailing-。+whitespace|{_BEST}", binary=True
)
JGLUE_F1 = _published(
    jglue_f1, "character F1 as JGLUE", f"bag-of-characters-f1|norm:lowercase+trailing-。+whitespace|{_BEST}"
)
LLM_JP_EVAL_CHAR_F1 = Metric(
    key="llm_jp_eval_char_f1", title="char_f1 as llm-jp-eval", section="published", needs_reference=True, floors=True,
    definition="fuzzywuzzy-token_sort_ratio|norm:nfkc|cut:first-empty-line|refs:output", empty="0",
    of_text=lambda text, row: llm_jp_eval_char_f1(text, row.output),
)  # fmt: skip
FLEXEVAL_CHAR_F1 = _published(flexeval_char_f1, "char_f1 as flexeval", f"fuzzywuzzy-ratio|norm:none|{_BEST}")
STABILITY_F1 = _published(
    stability_f1, "word F1 as Stability", f"bag-of-words-f1|norm:emoji-dropped+neologdn|{_WORDS}|{_BEST}"
)
FACTS_RECALL = _recall()
COVERAGE = _grounded(
    key="coverage", title="share copied from the context",
    definition=f"extractive-coverage|tok:character|shortest:4|{_TEXT}",
    of_text=lambda text, row: found.coverage if (found := extraction(text, row.input)) else None,
)  # fmt: skip
EOS_RATE = Metric(
    key="eos_rate", title="ended by itself (EOS)", section="behaviour", binary=True,
    definition="ended-with-end-of-text", empty="missing",
    of_prediction=lambda answer: ended(answer.finish_reason),
)  # fmt: skip
RAN_ON = Metric(
    key="ran_on", title="ran on into the template", section="behaviour", lower_is_better=True,
    definition="cut-at-a-heading-of-the-template", empty="missing",
    of_prediction=lambda answer: ran_on(answer.finish_reason),
)  # fmt: skip
LENGTH_RATIO = Metric(
    key="length_ratio", title="length / reference", section="behaviour", needs_reference=True,
    weight=lambda row: len(row.output.strip()), definition="answer/reference|tok:character|norm:strip|refs:output",
    of_text=lambda text, row: length_ratio(text, row.output),
)  # fmt: skip
PARTICLE_SHARE = _style(particle_share, "particles", f"助詞/tokens|{_MECAB}")
PUNCTUATION_SHARE = _style(punctuation_share, "punctuation", "unicode-P/characters|norm:whitespace-dropped")

METRICS: tuple[Metric, ...] = (
    _compared(
        rouge_l, title="ROUGE-L", section="overlap", headline=True, compared=True,
        definition=f"rougeL-f1|{_MECAB}|lcs:rapidfuzz-{_RAPIDFUZZ}|{_BEST}",
    ),
    CHARACTER_F1,
    _compared(
        edit_similarity, title="edit similarity", section="overlap", place=1,
        definition=f"indel-similarity|{_TEXT}|tok:character|rapidfuzz:{_RAPIDFUZZ}|{_BEST}",
    ),
    _compared(
        chrf, title="chrF", section="overlap",
        definition=f"chrF2|nc:6|nw:0|{_TEXT}|sacrebleu:{version('sacrebleu')}|{_BEST}",
    ),
    _compared(
        exact_match, title="exact match", section="correctness", compared=True, binary=True,
        definition=f"equal|{_TEXT}|{_BEST}",
    ),
    GOLD_CONTAINED,
    CORRECT,
    JGLUE_EXACT_MATCH,
    JGLUE_F1,
    LLM_JP_EVAL_CHAR_F1,
    FLEXEVAL_CHAR_F1,
    STABILITY_F1,
    Metric(
        key="reference_bits_per_character", title="reference bits / character", section="free of decoding",
        needs_reference=True, lower_is_better=True, compared=True, weight=lambda row: len(row.output),
        definition="nll/ln2/characters|norm:none|refs:output",
        of_prediction=lambda answer: reference_bits_per_character(answer.reference_nll, answer.example.output),
    ),
    Metric(
        key="context_gain", title="context gain, bits / character", section="free of decoding",
        needs_reference=True, needs_context=True, weight=lambda row: len(row.output),
        definition="(nll-without-context−nll)/ln2/characters|norm:none|refs:output",
        of_prediction=lambda answer: context_gain(
            answer.reference_nll_without_context, answer.reference_nll, answer.example.output
        ),
    ),
    FACTS_RECALL,
    *map(_recall, _KINDS),
    *map(_unsupported, (None, *_KINDS)),
    COVERAGE,
    _grounded(
        key="density", title="length of copied passages",
        definition=f"extractive-density|tok:character|shortest:4|{_TEXT}",
        of_text=lambda text, row: found.density if (found := extraction(text, row.input)) else None,
    ),
    _supported(noun_support, "nouns found in the context", f"share-of-nouns-in-context|{_MECAB}"),
    _supported(number_support, "numbers found in the context", f"share-of-numbers-and-dates-in-context|{_FACTS}"),
    _supported(katakana_support, "katakana words found in the context", f"share-of-katakana-words-in-context|{_TEXT}"),
    EOS_RATE,
    RAN_ON,
    LENGTH_RATIO,
    _style(rep_4, "repeated 4-grams", f"repeated-4-grams/4-grams|{_MECAB}"),
    _style(distinct_2, "distinct 2-grams", f"different-bigrams/bigrams|{_MECAB}"),
    PARTICLE_SHARE,
    PUNCTUATION_SHARE,
    Metric(
        key="training_overlap", title="longest training passage, characters", section="style",
        definition="longest-shared-passage|norm:none|prompt-passages-of-8-cut-out",
        of_prediction=lambda answer: answer.training_overlap,
    ),
)  # fmt: skip
"""All metrics, in the order of the results."""

BY_KEY = {metric.key: metric for metric in METRICS}
FLOOR_METRICS = tuple(metric for metric in METRICS if metric.floors)
OWN_METRICS = tuple(metric for metric in METRICS if metric.of_text and not metric.needs_reference)
"""What is measured on the references themselves, too."""
REPORTED = tuple(sorted(METRICS, key=lambda metric: (SECTIONS.index(metric.section), metric.place)))
"""All metrics, in the order of the report."""
HEADLINE_METRICS = tuple(metric for metric in REPORTED if metric.headline)
"""What is tested as a family, over the categories and over the groups."""
HEADLINE = CHARACTER_F1
"""What verdicts and figures speak of."""


def in_section(*sections: Section) -> list[Metric]:
    """The metrics of some parts of the report, in its order."""
    return [metric for metric in REPORTED if metric.section in sections]
