"""What is measured on one answer of the study, and on what understands nothing. No torch here."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence

from eval.metrics.catalogue import BY_KEY
from eval.metrics.floors import CEILINGS, FLOORS, lead_as_long
from eval.metrics.text import normalise, tokens
from eval.predictions import Prediction
from sft.data.records import Example

CATALOGUE = (
    "gold_contained", "character_f1", "facts_recall", "jglue_exact_match", "jglue_f1", "correct", "eos_rate", "rep_4",
    "coverage",
)  # fmt: skip
"""The evaluation's own metrics, by their keys there."""
COMPARED = ("gold_contained", "character_f1", "facts_recall", "jglue_exact_match", "jglue_f1", "correct")
"""Those of them that floors are measured by, too."""
OWN = {
    "characters": "length in characters",
    "tokens": "length in tokens",
    "tokens_repeated": "tokens said before",
    "words_repeated": "words said before",
    "about_the_task": "about the task, not an answer",
}
"""The study's own: key → what readers see."""
LEAD = "lead."
"""Before the key of a metric: of the context's beginning, as long as the answer."""
MEASURES = (*CATALOGUE, *OWN, *(f"{LEAD}{key}" for key in COMPARED))
"""Every column of an answer's scores."""
BINARY = frozenset(
    {"about_the_task", *(f"{lead}{key}" for lead in ("", LEAD) for key in CATALOGUE if BY_KEY[key].binary)}
)
JGLUE_ROWS = "jsquad"
"""How the names of those sets of rows begin that have JGLUE's own metrics."""

Encode = Callable[[str], Sequence[Hashable]]


def measure(prediction: Prediction, rows: str, encode: Encode) -> dict[str, float | None]:
    """Every one of MEASURES of an answer to a row of the set `rows`; None where there is nothing to measure.

    `encode` is the model's tokenizer. `tokens_repeated` is the share of the answer's tokens that stand in the question,
    in the context or before in the answer, 0–1; `words_repeated` the same for MeCab's words.
    """
    row, text = prediction.example, "" if prediction.finish_reason == "error" else prediction.text
    (lead,) = lead_as_long([row], [text])
    values = {key: BY_KEY[key].measure(prediction) for key in CATALOGUE}
    values |= {
        "characters": len(text.strip()),
        "tokens": prediction.output_tokens,
        "tokens_repeated": repeated(encode(text), encode(row.instruction), encode(row.input)),
        "words_repeated": repeated(tokens(text), tokens(row.instruction), tokens(row.input)),
        "about_the_task": float(about_the_task(text, row)),
    }
    values |= {f"{LEAD}{key}": value for key, value in compared(lead, row).items()}
    return {key: None if "jglue" in key and not rows.startswith(JGLUE_ROWS) else values[key] for key in MEASURES}


def compared(text: str | None, row: Example) -> dict[str, float | None]:
    """The metrics that floors are measured by, of a text as the answer to a row; None everywhere without a text."""
    return {key: None if text is None else BY_KEY[key].measure_text(text, row) for key in COMPARED}


def floors(examples: Sequence[Example]) -> dict[str, list[dict[str, float | None]]]:
    """Each of the evaluation's floors and ceilings by name: its `compared` of every row."""
    return {
        name: [compared(text, row) for text, row in zip(answer(examples, 0), examples, strict=True)]
        for name, answer in (FLOORS | CEILINGS).items()
    }


def repeated(said: Sequence[Hashable], *before: Iterable[Hashable]) -> float | None:
    """The share of what is `said` that was said before it or stands in `before`, 0–1; None when nothing is said."""
    seen = set().union(*before)
    count = 0
    for one in said:
        count += one in seen
        seen.add(one)
    return count / len(said) if said else None


_ASKED = "課題|タスク|問題|問い|質問|設問|指示"
_ABOUT = re.compile(
    rf"この(?:{_ASKED})(?:では|で、|には|に対し|について)"
    rf"|(?:以下|次|上記|下記|上)の[^。、\n]{{0,6}}?(?:{_ASKED}|要求)"
    rf"|(?:{_ASKED})に(?:対して)?(?:答え|回答|解答|応答|従[いうっ])"
    r"|(?:答え|回答|解答|応答|説明|記述)(?:する|る)?ことが求め"
    r"|(?:回答|解答|応答|答え)を(?:書[いきく]|記述|記入|作成|入力|選択|選[びぶん])"
    r"|要求を適切に満たす"
    r"|\b(?:this|the|following|above|given) (?:task|question|instruction)s?\b"
)


def about_the_task(text: str, row: Example) -> bool:
    """Whether an answer speaks of being asked (この課題では…, 以下の2つの問い…) in place of answering.

    A deterministic marker: such a phrase stands in the answer, and in neither question, context nor reference.
    """
    known = "\n".join(map(normalise, (row.instruction, row.input, *row.references)))
    return any(found.group() not in known for found in _ABOUT.finditer(normalise(text)))
