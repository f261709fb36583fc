"""An answer compared with its references. No torch here.

Text metrics take the answer and one reference or several; with several, the score is that of the best one.
They compare `eval.metrics.text.normalise`d texts. An answer or reference that is empty after normalisation scores 0
in every text metric, even against another empty text: saying nothing is never right.
"""

from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import Indel, LCSseq
from sacrebleu.metrics import CHRF

from eval.metrics.text import normalise, tokens

References = str | Sequence[str]
_CHRF = CHRF(char_order=6, word_order=0, beta=2)


def rouge_l(answer: str, references: References) -> float:
    """ROUGE-L F measure over MeCab tokens, 0–1.

    LCS is the length of the longest common subsequence of tokens; precision = LCS / tokens of the answer,
    recall = LCS / tokens of the reference, score = 2·precision·recall / (precision + recall)
    = 2·LCS / (tokens of both). 0 when nothing is shared. Equal to rouge_score's `rougeL.fmeasure`, given
    the same tokens (Lin 2004, W04-1013, with beta = 1).
    """
    # Numbers, because rapidfuzz compares hashes of strings, and those can collide.
    number: dict[str, int] = {}
    first, *others = (
        [number.setdefault(token, len(number)) for token in tokens(text)] for text in (answer, *_several(references))
    )
    pairs = [(first, second) for second in others if first and second]
    return max((2 * LCSseq.similarity(*pair) / sum(map(len, pair)) for pair in pairs), default=0.0)


def character_f1(answer: str, references: References) -> float:
    """F1 of the two bags of characters, 0–1, spaces included.

    shared = Σ over characters of min(count in answer, count in reference);
    score = 2·shared / (characters of both). 0 when nothing is shared. The order of the characters does not
    count: 1981年7月10日 and 1987年10月1日 score 1. The definition of JGLUE's official JSQuAD evaluation on
    normalised text, except that two empty texts score 0 (there: 1).
    """
    normalised = normalise(answer)
    bag, golds = Counter(normalised), _golds(normalised, references)
    return max((2 * (bag & Counter(g)).total() / (len(normalised) + len(g)) for g in golds), default=0.0)


def edit_similarity(answer: str, references: References) -> float:
    """Indel similarity of the normalised texts, 0–1; flexeval's "char_f1" is one of texts as they are.

    1 − (insertions + deletions that turn one into the other) / (characters of both)
    = 2·LCS / (characters of both), with LCS the longest common subsequence of characters. Unlike in
    `character_f1`, order counts.
    """
    normalised = normalise(answer)
    return max((Indel.normalized_similarity(normalised, gold) for gold in _golds(normalised, references)), default=0.0)


def chrf(answer: str, references: References) -> float:
    """chrF2 of the normalised texts, 0–1: sacrebleu's sentence score (nc 6, nw 0, beta 2) / 100.

    Precision and recall of character n-grams, averaged over n = 1…6 as far as both texts have such n-grams, in
    an F measure that weighs recall twice (Popović 2015, W15-3049). Whitespace does not count.
    """
    normalised = normalise(answer)
    golds = _golds(normalised, references)
    return _CHRF.sentence_score(normalised, golds).score / 100 if golds else 0.0


def exact_match(answer: str, references: References) -> float:
    """1 when the normalised answer is one of the normalised references, else 0. Empty answers score 0.

    The normalisation is JSQuAD's, after NFKC.
    """
    normalised = normalise(answer)
    return float(normalised in _golds(normalised, references))


def gold_contained(answer: str, references: References) -> float:
    """1 when a normalised reference stands in the normalised answer as it is, else 0.

    A reference that is empty after normalisation is contained in nothing.
    """
    normalised = normalise(answer)
    return float(any(gold in normalised for gold in _golds(normalised, references)))


def _several(references: References) -> Sequence[str]:
    return (references,) if isinstance(references, str) else references


def _golds(answer: str, references: References) -> list[str]:
    """The normalised references that `answer`, normalised, can be compared with: none when it is empty."""
    golds = [normalise(reference) for reference in _several(references)] if answer else []
    return [gold for gold in golds if gold]
