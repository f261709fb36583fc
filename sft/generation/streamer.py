"""Answer tokens become text, whole or as they come."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sft.system.visible import visible


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Text of answer tokens, without special tokens and without white space around it."""
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


@dataclasses.dataclass
class CharacterStreamer(BaseStreamer):
    """Hands on text as it is generated, whole characters only: a kana or kanji may take several tokens."""

    tokenizer: PreTrainedTokenizerBase
    write: Callable[[str], object]
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
        self._flush(self._settled(decode(self.tokenizer, self.tokens)))

    def end(self) -> None:
        """Write what was held back."""
        self._flush(decode(self.tokenizer, self.tokens))

    def _settled(self, text: str) -> str:
        """`text` without what further tokens may turn into something else: an unfinished character or newline."""
        text = text.rstrip("\ufffd")
        newline = self.tokenizer.init_kwargs.get("newline") or ""
        begun = [newline[:length] for length in range(len(newline) - 1, 0, -1) if text.endswith(newline[:length])]
        return text.removesuffix(begun[0] if begun else "").rstrip()  # an answer ends without white space

    def _flush(self, text: str) -> None:
        if len(text) > self.written:
            self.write(visible(text[self.written :]))
            self.written = len(text)
