"""Metrics exactly as other evaluations compute them, under names that say whose they are. No torch here.

What goes by one name elsewhere is several metrics: "char_f1" is an edit ratio in flexeval and one of sorted clauses in
llm-jp-eval, JSQuAD's "F1" is of characters in JGLUE and of MeCab words in Stability's harness. Each normalises in its
own way, so `eval.metrics.text.normalise` has no part here. `tests/test_published.py` holds them against the originals.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import regex
from rapidfuzz.distance import Indel

from eval.metrics.text import surfaces


def jglue_exact_match(answer: str, references: Sequence[str]) -> float:
    """JSQuAD's official exact match, 0 or 1: JGLUE's patch of transformers' squad_metrics.py.

    Lower case, `。` at the end dropped, white space to single spaces; no Unicode normalisation. The best reference.
    """
    return float(_jglue(answer) in _jglue_golds(references))


def jglue_f1(answer: str, references: Sequence[str]) -> float:
    """JSQuAD's official F1, 0–1: of two bags of characters, after the normalisation of `jglue_exact_match`."""
    text, golds = _jglue(answer), _jglue_golds(references)
    return 1.0 if text in golds else max(bag_f1(text, gold) for gold in golds)


def llm_jp_eval_char_f1(answer: str, reference: str) -> float:
    """llm-jp-eval's char_f1, 0–1: `token_sort_ratio` of fuzzywuzzy on the answer up to its first empty line.

    Both texts in NFKC; what is no letter or digit divides them into clauses, which are sorted and compared by
    `edit_ratio`. Latin-1's own letters (é, °) are lost. There is one reference, the first.
    """
    first, second = (_sorted_clauses(unicodedata.normalize("NFKC", text)) for text in (_first_part(answer), reference))
    return edit_ratio(first, second)


def flexeval_char_f1(answer: str, references: Sequence[str]) -> float:
    """flexeval's char_f1, 0–1: `edit_ratio` of the texts as they are with the best reference."""
    return max(edit_ratio(answer, reference) for reference in references)


def stability_f1(answer: str, references: Sequence[str]) -> float:
    """JSQuAD's F1 in Stability AI's harness (jp-stable), 0–1: of two bags of MeCab words with UniDic Lite.

    Without emoji, after neologdn's normalisation, without punctuation marks. The best reference.
    """
    return max(bag_f1(_stability_words(answer), _stability_words(reference)) for reference in references)


def bag_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of two bags: 2·shared / (size of both); 0 where nothing is shared."""
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0


def edit_ratio(first: str, second: str) -> float:
    """fuzzywuzzy's `ratio` / 100: the Indel similarity in whole percent; 0 where one text alone is empty."""
    if first == second:
        return 1.0
    return round(100 * Indel.normalized_similarity(first, second)) / 100 if first and second else 0.0


def _jglue(text: str) -> str:
    return " ".join(text.lower().rstrip("。").split())


def _jglue_golds(references: Sequence[str]) -> list[str]:
    return [gold for reference in references if (gold := _jglue(reference))] or [""]


def _first_part(answer: str) -> str:
    return answer.split("\n\n")[0].strip()


_LATIN_1 = dict.fromkeys(range(0x80, 0x100))


def _sorted_clauses(text: str) -> str:
    clauses = re.sub(r"(?i)\W", " ", text.translate(_LATIN_1)).lower().split()
    return " ".join(sorted(clauses))


_MARKS = frozenset(
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
)
"""The tokens that the harness leaves out; `《`, `・` and all that MeCab joins stay, as there."""

# Emoji that are single characters, as the emoji package has them, and the harness's own ranges (flags, dingbats).
_EMOJI = regex.compile(r"(?V1)[\p{Emoji}\u2702-\u27b0--[0-9#*]]")


@lru_cache(4096)
def _stability_words(text: str) -> tuple[str, ...]:
    plain = " ".join(neologdn(_EMOJI.sub("", text)).split())
    return tuple(word for word in surfaces(plain) if word not in _MARKS)


_FOLDED = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5E) if chr(code) not in "＂＇＼｀"}
    | {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF61, 0xFF9E)}
    | dict.fromkeys("﹣－ｰ—―─━", "ー")
    | {"゛": "ﾞ", "゜": "ﾟ", "“": '"', "”": '"', "‘": "`", "’": "'", "¥": "\\", "\u3000": " "}
)
_TILDES = re.compile("[~∼∾〜〰～]")
_FIRST_HYPHEN = re.compile("(?<![-˗֊‐‑‒–⁃⁻₋−])[˗֊‐‑‒–⁃⁻₋−]")
_MORE_HYPHENS = re.compile("[˗֊‐‑‒–⁃⁻₋−]")
_VOICED = re.compile("([うウカキクケコサシスセソタチツテトハヒフヘホ])ﾞ|([はひふへほハヒフヘホ])ﾟ")
# A space stays behind ASCII, and in front of what is not Japanese.
_SPACES = re.compile("(?<=[\x00-)+-\x7f])( ++)(?=[^、-ヿ一-鿿\uff00-\uffef]|ー)| +")


def neologdn(text: str) -> str:
    """What the package neologdn makes of a text: one width, one hyphen and long vowel each, no ~, few spaces."""
    hyphens = _MORE_HYPHENS.sub("", _FIRST_HYPHEN.sub("-", _TILDES.sub("", text)))
    spaced = _SPACES.sub(lambda found: " " if found[1] else "", hyphens.translate(_FOLDED))
    return _VOICED.sub(_with_mark, re.sub("ー+", "ー", spaced))


def _with_mark(found: re.Match[str]) -> str:
    mark = "\u3099" if found[1] else "\u309a"
    return unicodedata.normalize("NFC", (found[1] or found[2]) + mark)
