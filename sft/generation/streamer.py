"""Answer tokens become text, whole or as they come."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sft.generation.ends import AnswerEnds, text_of
from sft.prompt.encode import eos_id
from sft.system.visible import visible


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Text of answer tokens, without special tokens and without white space around it."""
    return text_of(tokenizer, tokens).strip()


@dataclasses.dataclass
class CharacterStreamer(BaseStreamer):
    """Hands on text as it is generated, whole characters only: a kana or kanji may take several tokens.

    Of what ends an answer by its text (`ends`; None: nothing does) it hands on nothing.
    """

    tokenizer: PreTrainedTokenizerBase
    write: Callable[[str], object]
    ends: AnswerEnds | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    written: int = 0
    """Characters that were handed on."""
    saw_prompt: bool = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call brings the prompt, which is not shown."""
        if not self.saw_prompt:
            self.saw_prompt = True
            return
        self.tokens.extend(value.flatten().tolist())
        self._flush(self._settled(text_of(self.tokenizer, self.tokens)))

    def end(self) -> None:
        """Write what was held back and belongs to the answer."""
        text = text_of(self.tokenizer, self.tokens)
        self._flush(self.ends.cut(text, eos_id(self.tokenizer) in self.tokens).text if self.ends else text.strip())

    def _settled(self, text: str) -> str:
        """`text` without what further tokens may make something else of: an unfinished character, newline or end."""
        text = text.rstrip("\ufffd")
        newline = self.tokenizer.init_kwargs.get("newline") or ""
        begun = [newline[:length] for length in range(len(newline) - 1, 0, -1) if text.endswith(newline[:length])]
        text = text.removesuffix(begun[0] if begun else "")
        return (self.ends.settled(text) if self.ends else text).strip()  # an answer has no white space around it

    def _flush(self, text: str) -> None:
        if len(text) > self.written:
            self.write(visible(text[self.written :]))
            self.written = len(text)
