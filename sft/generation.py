"""Answers: left-padded batches, a repetition penalty that knows the prompt from the answer, and streaming."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from sft.cache import growing_cache
from sft.errors import UserError
from sft.records import FinishReason
from sft.shown import visible
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
def read_prompts(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]) -> DynamicCache | None:
    """Keys and values of a batch of prompts, to answer copies of it under several settings while reading it once.

    The last token of each is left to `generate`, which needs its logits. None where that leaves nothing.
    """
    input_ids, mask = _padded(tokenizer, prompts, model.device)
    if input_ids.shape[1] == 1:
        return None
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = growing_cache(model.config)
    model(
        input_ids=input_ids[:, :-1], attention_mask=mask[:, :-1], position_ids=position_ids[:, :-1],
        past_key_values=cache, use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    return cache


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    generation: Mapping[str, Any],
    streamer: BaseStreamer | None = None,
    prompt_cache: DynamicCache | None = None,
) -> list[Answer]:
    """Answer a batch of encoded prompts at once.

    `generation` holds GenerationConfig's arguments and `repetition_penalty_scope`; temperature 0 is greedy.
    Rows are padded on the left, so that each answers as it would alone, and a row that has ended leaves the batch.
    `prompt_cache` is what `read_prompts` made of the same prompts; answers are written on behind it.
    """
    settings = effective_settings(generation)
    penalty, scope = settings.get("repetition_penalty"), settings.get("repetition_penalty_scope", "generated")
    input_ids, mask = _padded(tokenizer, prompts, model.device)
    eos = eos_id(tokenizer)
    processors = LogitsProcessorList()
    if penalty is not None:
        processors.append(ScopedRepetitionPenalty(penalty, scope, mask))
    if settings.get("num_beams", 1) > 1:
        streamer = None  # beams end before they can be streamed
    whole_batch = any(settings.get(key, default) != default for key, default in _WHOLE_BATCH.items())
    output = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        generation_config=library_config(settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=eos),
        logits_processor=processors,
        # `generate` keeps the streamer from loops that are not its own.
        custom_generate=None if whole_batch else functools.partial(_decode_unfinished, streamer=streamer),
        past_key_values=None if whole_batch else prompt_cache or growing_cache(model.config),
        streamer=streamer,
    )
    return [_answer(tokenizer, row.tolist(), eos) for row in output[:, input_ids.shape[1] :]]


def _padded(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, (prompts, longest prompt), padded on the left."""
    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return input_ids, mask


_WHOLE_BATCH = {
    "num_beams": 1,
    "use_cache": True,
    "cache_implementation": None,
    "guidance_scale": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
}
"""Settings whose other values bind the rows of a batch together, with the value that does not."""

ENDED_SHARE = 0.25
"""Share of ended rows from which on they are taken out; fewer are not worth the copy of everybody's cache."""


def _decode_unfinished(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    streamer: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """The decoding loop of transformers' `generate`, except that rows which have ended leave the batch.

    `generate` hands over everything prepared; (rows, tokens) come back as from its own loop, padded after the end.
    """
    generated: list[torch.Tensor | None] = [None] * len(input_ids)
    rows = list(range(len(input_ids)))  # the place in `generated` of each row that is still decoded
    outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
    while True:
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float())
        del outputs  # the logits of a prompt are large
        if generation_config.do_sample:
            tokens = torch.multinomial(scores.softmax(dim=-1), num_samples=1)
        else:
            tokens = scores.argmax(dim=-1, keepdim=True)
        input_ids = torch.cat([input_ids, tokens], dim=1)
        if streamer is not None:
            streamer.put(tokens.cpu())
        ended = stopping_criteria(input_ids, None).tolist()
        for place, row in enumerate(rows):
            if ended[place] and generated[row] is None:
                generated[row] = input_ids[place]
        unfinished = [place for place, row in enumerate(rows) if generated[row] is None]
        if not unfinished:
            break
        if len(rows) - len(unfinished) >= ENDED_SHARE * len(rows):
            kept = torch.tensor(unfinished, device=input_ids.device)
            input_ids = input_ids[kept]
            model_kwargs = _keep_rows(model_kwargs, kept, len(rows))
            for processor in logits_processor:
                if isinstance(processor, ScopedRepetitionPenalty):
                    processor.keep_rows(kept)
            rows = [rows[place] for place in unfinished]
        inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
    if streamer is not None:
        streamer.end()
    return pad_sequence(
        [row for row in generated if row is not None],
        batch_first=True,
        padding_value=generation_config._pad_token_tensor.item(),
    )


def _keep_rows(model_kwargs: dict[str, Any], kept: torch.Tensor, rows: int) -> dict[str, Any]:
    """What the model is called with, for the rows `kept` of `rows`; the cache is changed in place."""
    model_kwargs["past_key_values"].batch_select_indices(kept)
    return {
        key: value[kept] if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows else value
        for key, value in model_kwargs.items()
    }


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
        return text.removesuffix(begun[0]) if begun else text

    def _flush(self, text: str) -> None:
        if len(text) > self.written:
            self.write(visible(text[self.written :]))
            self.written = len(text)
