"""Where an answer ends by its text: at a heading of the prompt's template, or at a text that the user named."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from sft.prompt.encode import encode_answer

MOST_SPACES = 8
"""In front of a heading in its line."""
SPACES = " \t\u3000"


class Cut(NamedTuple):
    """An answer, and what ended it; None: nothing in its text did."""

    text: str
    reason: Literal["heading", "stop"] | None


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Text of answer tokens, without special tokens."""
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class AnswerEnds:
    """Finds the first heading at the beginning of a line, and the first stop string anywhere, in an answer.

    It is text that is looked at, since a tokenizer may divide a heading in many ways. At each token only that token is
    looked up in a table, unless it holds the last character of what is looked for: then the last few are decoded.

    Args:
        headings: what `sft.prompt.headings` says of the template.
        stop_strings: `generation.stop_strings`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, headings: Sequence[str] = (), stop_strings: str | Sequence[str] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = [stop_strings] if isinstance(stop_strings, str) else [*stop_strings]
        # A tokenizer that changes characters gives a heading back as it knows it.
        read_back = [text_of(tokenizer, encode_answer(tokenizer, heading)).lstrip(" ") for heading in headings]
        self.headings = list(dict.fromkeys([*headings, *(text for text in read_back if any(map(str.isalnum, text)))]))
        texts = [*self.headings, *self.stop_strings]
        heading = f"(?P<heading>(?<![^\n])[{SPACES}]{{0,{MOST_SPACES}}}(?:{_any_of(self.headings)}))"
        choices = [heading] * bool(self.headings) + [_any_of(self.stop_strings)] * bool(self.stop_strings)
        self._pattern = re.compile("|".join(choices)) if choices else None
        newline = tokenizer.init_kwargs.get("newline") or "\n"  # what it writes one as, in tokens
        self._last = {text[-1] for text in texts} | {newline[-1] for text in texts if text[-1] == "\n"}
        # A token may be a byte, and what is in front has to be seen: a line's beginning, and spaces of three bytes.
        longest = max((len(text.replace("\n", newline).encode()) for text in texts), default=0)
        self._window = longest + len(newline) + 4 * MOST_SPACES
        self._could_complete: dict[int, bool] = {}

    @property
    def any(self) -> bool:
        """Whether there is anything that an answer could end at."""
        return self._pattern is not None

    def complete(self, tokens: Sequence[int]) -> bool:
        """Whether the last of an answer's tokens completes an end, of which none was complete before."""
        if self._pattern is None or not tokens or not self._may_complete(tokens[-1]):
            return False
        text = text_of(self.tokenizer, tokens[-self._window :])
        # What is not the whole answer does not begin a line.
        return self._pattern.search(text if len(tokens) <= self._window else f".{text}") is not None

    def criterion(self, prompt_tokens: int) -> Callable[[torch.Tensor, object], torch.Tensor]:
        """The same as a stopping criterion of `generate`: (rows, prompt and answer tokens) to (rows,)."""

        def ended(input_ids: torch.Tensor, scores: object) -> torch.Tensor:
            first = max(prompt_tokens, input_ids.shape[1] - self._window - 1)
            found = [self.complete(row) for row in input_ids[:, first:].tolist()]
            return torch.tensor(found, device=input_ids.device)

        return ended

    def cut(self, text: str, is_whole: bool) -> Cut:
        """The answer in `text`, without what ended it and without white space around it.

        `is_whole`: it came to its end-of-text token. If not, the length limit may have cut a heading in two, and its
        first half is left out, too.
        """
        if self._pattern and (found := self._pattern.search(text)):
            return Cut(text[: found.start()].strip(), "heading" if found.lastgroup else "stop")
        return Cut((text if is_whole else text[: self._begun_heading(text)]).strip(), None)

    def settled(self, text: str) -> str:
        """`text`, of an answer that goes on, without what may be the beginning of an end."""
        if self._pattern and (found := self._pattern.search(text)):
            return text[: found.start()]
        first = self._begun_heading(text)
        for stop in self.stop_strings:
            begun = [length for length in range(1, len(stop)) if text.endswith(stop[:length])]
            first = min(first, len(text) - max(begun, default=0))
        return text[:first]

    def _begun_heading(self, text: str) -> int:
        """Where the last line of `text` begins, if it is the beginning of a heading; else where it ends."""
        first = text.rfind("\n") + 1
        begun = text[first:].lstrip(SPACES)
        return first if any(heading.startswith(begun) for heading in self.headings) else len(text)

    def _may_complete(self, token: int) -> bool:
        known = self._could_complete.get(token)
        if known is None:
            text = text_of(self.tokenizer, [token])
            # A space is lost at the beginning of a text, and a character of several bytes may end with this one.
            known = any(
                last in text or last in SPACES or (not last.isascii() and "\ufffd" in text) for last in self._last
            )
            self._could_complete[token] = known
        return known


def _any_of(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, texts))
