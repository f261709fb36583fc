"""Whether an answer offers several answers and leaves the choice to the reader. No torch here."""

import functools
import itertools
import re
from collections.abc import Callable, Sequence

from eval.metrics.facts.names import NOUN
from eval.metrics.text import Word, words
from eval.metrics.verdict.polarity import PREFIX, SUFFIX, without_idioms

_OR = re.compile(
    "か?、?(?:そうで|それで|さも)なければ|"
    "または|又は|あるいは|或いは|もしくは|若しくは|それとも|ないしは?|はたまた| or |いや、|ひょっとすると|でなければ"
)
_ANY = re.compile("どれか|いずれか|どちらか|どっちか|のうちの?(?:一つ|1つ|どれ|いずれ)|候補")
_MAYBE = re.compile("だろう|でしょう|可能性|と思い|気がし|考えられ|おそらく|たぶん|多分|もしか")
_MARK = re.compile(r"^\s*(?:[-*・•●○◦]|\(?\d{1,2}[.):]|[①-⑳])\s*")
_END = re.compile(r"(?:です|でした|である|だった|だ|でしょう|だろう|など|等|とか|かな|か|ね|よ|が|も|の)*[。?？!]*$")
_PARTS = re.compile(
    r"[、,，/／;\n。?？]|(?<=[一-龠])・(?=[一-龠])|(?<=[一-龠ァ-ヺー\d])[とや](?=[一-龠ァ-ヺ\d])|または|又は|あるいは|或いは|もしくは|若しくは|それとも"
)
_AND = re.compile(r"(?<=[一-龠ァ-ヺー\d])[とや](?=[一-龠ァ-ヺ\d])")
_TOPIC = re.compile("^[^はが。、]{1,12}[はが](?=.)")
_NOMINAL = frozenset((NOUN, SUFFIX, PREFIX, "記号", "空白", "代名詞", "形状詞"))
_FEWEST = 3
"""Items that make a list of guesses where nothing else says that they are."""

Holds = Callable[[str], bool]


def items(text: str) -> list[str]:
    """The items of a text that is nothing but a list of nouns; the text itself where it is not."""
    found = [_END.sub("", _MARK.sub("", part.strip())) for part in _PARTS.split(text) if part.strip()]
    return found if len(found) > 1 and all(item and is_nominal(item) for item in found) else [text]


def is_list_of_guesses(answer: str, holds: Holds, reference: str) -> bool:
    """Whether the answer names what it should among others that it might be.

    That is AかB, AまたはB, Aでしょう。Bでしょう, or a bare list of three or more. `holds` says of a part of the answer
    whether it states what is asked for. A reference that leaves a choice itself allows the answer to.
    """
    if any(_alternatives(sentence) for sentence in _sentences(reference)):
        return False
    choices = map(_alternatives, _sentences(answer))
    return (
        any(any(map(holds, parts)) and not all(map(holds, parts)) for parts in choices)
        or _is_unsure(answer, holds)
        or _is_bare_list(answer, holds)
        or _names_two(answer, holds)
    )


def _names_two(answer: str, holds: Holds) -> bool:
    """Whether the answer is AとB and nothing else, of which it should be one."""
    said = _TOPIC.sub("", _END.sub("", answer.strip()))
    parts = _AND.split(said)
    return len(parts) == 2 and all(map(is_nominal, parts)) and sum(map(holds, parts)) == 1


def _is_unsure(text: str, holds: Holds) -> bool:
    """Whether the text supposes several things, of which it holds one and not another."""
    unsure = [one for one in re.split("[。、\n]", without_idioms(text)) if _MAYBE.search(one) and _has_noun(one)]
    return len(unsure) > 1 and any(map(holds, unsure)) and not all(map(holds, unsure))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[。!?！？])|\n", text)


def _alternatives(sentence: str) -> list[str]:
    """The nouns that a sentence gives to choose from; none where it does not."""
    if _ANY.search(sentence):
        return [part for part in _PARTS.split(_ANY.sub("", sentence)) if part.strip()]
    pieces = _OR.split(sentence)
    parts = [part for left, right in itertools.pairwise(pieces) for part in (*_last(left), *_first(right))]
    if parts:
        return parts
    found = words(without_idioms(sentence))
    start = 0
    for at, word in enumerate(found):
        if word.surface == "か" and word.pos == "助詞" and _between_nouns(found, at):
            parts.append("".join(one.surface for one in found[start:at]))
            start = at + 1
    return [*parts, "".join(one.surface for one in found[start:])] if parts else []


def _last(text: str) -> list[str]:
    """The nouns that a text ends in, divided at 、."""
    return [part[::-1] for part in _nouns(words(text.rstrip("、 "))[::-1], backwards=True)]


def _first(text: str) -> list[str]:
    """The nouns that a text begins with, divided at 、."""
    return _nouns(words(text.lstrip("、 ")))


def _nouns(found: Sequence[Word], backwards: bool = False) -> list[str]:
    run = ""
    for word in found:
        if word.pos not in _NOMINAL and word.surface not in ("の", "、"):
            break
        run += word.surface[::-1] if backwards else word.surface
    return [part for part in run.split("、") if part]


def _between_nouns(found: Sequence[Word], at: int) -> bool:
    """東京か大阪, 東京なのか大阪なのか; not 誰か, どこか or a question's か."""
    before = found[at - 1] if at else None
    behind = next((word for word in found[at + 1 :] if word.surface != "、"), None)
    if before is None or behind is None or before.pos == "代名詞" or found[max(0, at - 2)].pos == "代名詞":
        return False
    return behind.pos in (NOUN, PREFIX) and behind.lemma not in ("否", "如何") and before.pos in (
        NOUN, SUFFIX, "助動詞", "助詞",
    )  # fmt: skip


def _is_bare_list(answer: str, holds: Holds) -> bool:
    """Whether a list of nouns holds what is asked for, and more that is not."""
    run: list[str] = []
    for part in [*_PARTS.split(answer), "."]:
        item = _END.sub("", _MARK.sub("", part.strip()))
        if item and is_nominal(item):
            run.append(item)
            continue
        if part.strip() and run:
            right = sum(map(holds, run))
            if len(run) >= _FEWEST and right and len(run) - right > right:
                return True
            run = []
    return False


@functools.lru_cache(2048)
def is_nominal(text: str) -> bool:
    """Whether a text is nouns and nothing else."""
    found = words(text)
    return bool(found) and all(word.pos in _NOMINAL or word.surface in ("の", "(", ")", "「", "」") for word in found)


def _has_noun(part: str) -> bool:
    return any(word.pos == NOUN for word in words(part))
