"""Answers: left-padded batches, a repetition penalty that knows the prompt from the answer, and streaming."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from eval.predictions import FinishReason
from sft.cache import can_join, growing_cache
from sft.decoding import Prepared, decode_all
from sft.model.lora import base_of
from sft.prompt.encode import eos_id
from sft.system.errors import UserError
from sft.system.visible import visible

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
        if not prompt_mask.any(dim=1).all():
            raise ValueError("every prompt needs a token that is not padding")
        self.penalty = float(penalty)
        self.scope = scope
        self.prompt_mask = prompt_mask.bool()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Penalise `scores` (rows, vocabulary) given `input_ids` (rows, prompt and answer tokens)."""
        copies, prompt_length = len(input_ids) // len(self.prompt_mask), self.prompt_mask.shape[1]
        occurred = input_ids[:, prompt_length:]
        if self.scope == "all":
            mask = self.prompt_mask.repeat_interleave(copies, dim=0)
            prompt = input_ids[:, :prompt_length]
            # Padding is replaced by a token that counts anyway.
            first = prompt.gather(1, mask.int().argmax(dim=1, keepdim=True))
            occurred = torch.cat([torch.where(mask, prompt, first), occurred], dim=1)
        # Only the scores of these few tokens are touched: a vocabulary has up to 262,000.
        found = scores.gather(1, occurred)
        return scores.scatter(1, occurred, torch.where(found < 0, found * self.penalty, found / self.penalty))

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with these rows of the batch only."""
        self.prompt_mask = self.prompt_mask[rows]


class CheckedLogits(LogitsProcessor):
    """Raises UserError for logits that are no numbers, of which the library would make an answer like any other."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` (rows, vocabulary) as they are."""
        if scores.amax(dim=-1).isnan().any():
            raise UserError(
                "the model's logits are not numbers: its weights are damaged, or model.dtype is too narrow for them; "
                "try model.dtype=bfloat16, or float32"
            )
        return scores


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
    """Answer a batch of encoded prompts at once, as transformers does.

    `generation` holds GenerationConfig's arguments and `repetition_penalty_scope`; temperature 0 is greedy.
    Rows are padded on the left, so that each answers as it would alone.
    """
    settings = effective_settings(generation)
    if settings.get("num_beams", 1) > 1:
        streamer = None  # beams end before they can be streamed
    inputs = _inputs(model, tokenizer, prompts, settings)
    output = model.generate(**inputs, streamer=streamer)
    eos = eos_id(tokenizer)
    return [_answer(tokenizer, row.tolist(), eos) for row in output[:, inputs["input_ids"].shape[1] :]]


def generate_all(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    settings: Sequence[Mapping[str, Any]],
    budget: int,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[int, int, Answer]]:
    """Answer many encoded prompts under each of several settings (see `generate`), in batches of `budget` tokens.

    Hands out (number of the setting, place of the prompt, answer) as they end. Settings share the reading of the
    prompts, and rows that have ended make room for others (see `decode_all`); settings that bind rows together do not.
    `seeds` are the prompts' own, so that a sampled answer depends on nothing else; None: torch's random state.
    """
    if seeds is None:
        seeds = torch.randint(2**62, (len(prompts),)).tolist()
    together = [number for number, generation in enumerate(settings) if _can_refill(model, generation)]
    for number in range(len(settings)):
        if number in together:
            continue
        for batch in batches(prompts, settings[number]["max_new_tokens"], budget):
            torch.manual_seed(seeds[batch[0]])
            answers = generate(model, tokenizer, [prompts[place] for place in batch], settings[number])
            yield from ((number, place, answer) for place, answer in zip(batch, answers, strict=True))
    if not together:
        return
    effective = [effective_settings(settings[number]) for number in together]

    def prepare(places: Sequence[int], setting: int) -> Prepared:
        inputs = _inputs(model, tokenizer, [prompts[place] for place in places], effective[setting])
        return model.generate(**inputs, past_key_values=growing_cache(model.config), custom_generate=_hand_over)

    eos = eos_id(tokenizer)
    new_tokens = max(generation["max_new_tokens"] for generation in effective)
    lengths = list(map(len, prompts))
    for setting, place, tokens in decode_all(
        base_of(model), lengths, seeds, len(together), prepare, new_tokens, budget
    ):
        yield together[setting], place, _answer(tokenizer, tokens, eos)


def _can_refill(model: Any, generation: Mapping[str, Any]) -> bool:
    free = all(generation.get(key, default) == default for key, default in _WHOLE_BATCH.items())
    return free and can_join(model.config)


def _inputs(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `generate` of transformers is called with to answer `prompts` under effective `settings`."""
    width, padding = max(map(len, prompts)), tokenizer.pad_token_id
    input_ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    processors = LogitsProcessorList([CheckedLogits()])
    if (penalty := settings.get("repetition_penalty")) is not None:
        scope = settings.get("repetition_penalty_scope", "generated")
        processors.append(ScopedRepetitionPenalty(penalty, scope, mask))
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "generation_config": library_config(settings, pad_token_id=padding, eos_token_id=eos_id(tokenizer)),
        "logits_processor": processors,
    }


def _hand_over(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Prepared:
    """A decoding loop for `generate` of transformers that decodes nothing, but returns what it was prepared."""
    return Prepared(input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)


_WHOLE_BATCH = {
    "num_beams": 1,
    "use_cache": True,
    "cache_implementation": None,
    "guidance_scale": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "watermarking_config": None,
}
"""Settings whose other values bind the rows of a batch together, with the value that does not."""


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
