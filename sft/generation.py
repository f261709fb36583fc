"""Answers: left-padded batches, a repetition penalty that knows the prompt from the answer, and streaming."""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sft.errors import UserError
from sft.records import FinishReason
from sft.tokenization import eos_id

Scope = Literal["generated", "all"]


class ScopedRepetitionPenalty(LogitsProcessor):
    """Divides positive and multiplies negative scores of tokens that already occurred (CTRL, arXiv 1909.05858).

    transformers' own processor counts the whole prompt as having occurred, so an answer cannot quote its context
    freely, and in a left-padded batch it counts the padding too. Here padding never counts, and `scope` decides
    about the prompt.

    Args:
        penalty: above 1 discourages repetition, 1 changes nothing.
        scope: "generated" counts the answer's tokens only, "all" the prompt's too.
        prompt_mask: (prompts, prompt tokens), 1 for prompt tokens and 0 for padding. With beams or several
            answers a prompt, rows may be a multiple of the prompts.
    """

    def __init__(self, penalty: float, scope: Scope, prompt_mask: torch.Tensor) -> None:
        if penalty <= 0:
            raise ValueError(f"the repetition penalty must be above 0, not {penalty}")
        self.penalty = float(penalty)
        self.scope = scope
        self.prompt_mask = prompt_mask.bool()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Penalise `scores` (rows, vocabulary) given `input_ids` (rows, prompt and answer tokens)."""
        copies, prompt_length = len(input_ids) // len(self.prompt_mask), self.prompt_mask.shape[1]
        counted = torch.ones_like(input_ids, dtype=torch.bool)
        counted[:, :prompt_length] = self.prompt_mask.repeat_interleave(copies, dim=0) & (self.scope == "all")
        # Tokens that do not count are sent to an extra column, so that one scatter marks what occurred.
        vocabulary = scores.shape[1]
        occurred = torch.zeros(len(scores), vocabulary + 1, dtype=torch.bool, device=scores.device)
        occurred.scatter_(1, torch.where(counted, input_ids, vocabulary), True)
        penalised = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(occurred[:, :vocabulary], penalised, scores)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A generated answer: its text, why it ended, and how many tokens it took (end-of-text token included)."""

    text: str
    finish_reason: FinishReason
    tokens: int


def effective_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that take effect: temperature 0 is greedy, and greedy decoding has no sampling settings."""
    settings = dict(generation)
    settings["do_sample"] = settings.get("temperature", 0.0) > 0
    if not settings["do_sample"]:
        for key in ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            settings.pop(key, None)
    if settings.get("repetition_penalty", 1.0) == 1.0:
        settings.pop("repetition_penalty", None)
        settings.pop("repetition_penalty_scope", None)
    return settings


def library_config(settings: Mapping[str, Any], **more: Any) -> GenerationConfig:
    """transformers' own configuration of effective settings, without the penalty, which is applied by scope.

    Raises UserError for values that transformers refuses.
    """
    ours = ("repetition_penalty", "repetition_penalty_scope")
    try:
        return GenerationConfig(**{key: value for key, value in settings.items() if key not in ours}, **more)
    except ValueError as error:
        raise UserError(f"generation: {' '.join(str(error).split())[:300]}") from None


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    generation: Mapping[str, Any],
    streamer: BaseStreamer | None = None,
) -> list[Answer]:
    """Answer a batch of encoded prompts at once.

    `generation` holds GenerationConfig's arguments and `repetition_penalty_scope`; temperature 0 is greedy.
    Rows are padded on the left, so that each answers as it would alone.
    """
    settings = effective_settings(generation)
    penalty, scope = settings.get("repetition_penalty"), settings.get("repetition_penalty_scope", "generated")
    width = max(map(len, prompts))
    pad, eos = tokenizer.pad_token_id, eos_id(tokenizer)
    input_ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    processors = LogitsProcessorList()
    if penalty is not None:
        processors.append(ScopedRepetitionPenalty(penalty, scope, mask))
    output = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        generation_config=library_config(settings, pad_token_id=pad, eos_token_id=eos),
        logits_processor=processors,
        streamer=streamer if settings.get("num_beams", 1) == 1 else None,  # beams end before they can be streamed
    )
    return [_answer(tokenizer, row.tolist(), eos) for row in output[:, width:]]


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], eos: int) -> Answer:
    ended = eos in tokens
    body = tokens[: tokens.index(eos)] if ended else tokens
    return Answer(decode(tokenizer, body), "eos" if ended else "length", len(body) + ended)


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Text of answer tokens, without special tokens and without white space around it."""
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def batches(prompts: Sequence[list[int]], new_tokens: int, budget: int) -> Iterator[list[int]]:
    """Positions of `prompts` in batches, longest first, at most `budget` padded tokens each (at least one row).

    The longest come first so that memory runs out at once, if at all, and the time that is left is not
    underestimated. A row takes the longest prompt's tokens plus `new_tokens`.
    """
    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    while order:
        rows = max(1, budget // (len(prompts[order[0]]) + new_tokens))
        yield order[:rows]
        order = order[rows:]


class CharacterStreamer(BaseStreamer):
    """Hands on text as it is generated, whole characters only: a kana or kanji may take several tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        self.tokenizer = tokenizer
        self.write = write
        self.tokens: list[int] = []
        self.written = 0
        self.saw_prompt = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call brings the prompt, which is not shown."""
        if not self.saw_prompt:
            self.saw_prompt = True
            return
        self.tokens.extend(value.flatten().tolist())
        text = decode(self.tokenizer, self.tokens)
        self._flush(text.rstrip("\ufffd"))

    def end(self) -> None:
        """Write what was held back."""
        self._flush(decode(self.tokenizer, self.tokens))

    def _flush(self, text: str) -> None:
        if len(text) > self.written:
            self.write(printable(text[self.written :]))
            self.written = len(text)


def printable(text: str) -> str:
    """`text` with control characters (but newline and tab) replaced, so that a terminal shows and does not obey it."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) != "Cc" else "\ufffd" for character in text
    )
