"""Prompts are answered in left-padded batches, as transformers does or faster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sft.config.repetition_penalty import DEFAULT_SCOPE, PENALTY, SCOPE
from sft.generation.batch.cache import can_join, growing_cache
from sft.generation.batch.decoding import Prepared, batches, decode_all
from sft.generation.checked_logits import CheckedLogits
from sft.generation.ends import AnswerEnds, text_of
from sft.generation.pace import Watch
from sft.generation.penalty import ScopedRepetitionPenalty
from sft.generation.settings import STOP_STRINGS, FinishReason, effective_settings
from sft.model.lora import base_of
from sft.model.place import wider_format
from sft.prompt.encode import eos_id
from sft.system.errors import UserError


class Answer(NamedTuple):
    """A generated answer: its text, why it ended, and how many tokens it took, those that ended it included."""

    text: str
    finish_reason: FinishReason
    tokens: int


def library_config(settings: Mapping[str, Any], **more: Any) -> GenerationConfig:
    """transformers' own configuration of effective settings, without what is applied here: penalty and stop strings.

    Raises UserError for values that transformers refuses.
    """
    theirs = {key: value for key, value in settings.items() if key not in (PENALTY, SCOPE, STOP_STRINGS)}
    try:
        return GenerationConfig(**theirs, **more)
    except ValueError as error:
        raise UserError(f"generation: {' '.join(str(error).split())[:300]}") from None


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    generation: Mapping[str, Any],
    streamer: BaseStreamer | None = None,
    headings: Sequence[str] = (),
    stopped: Callable[[], bool] | None = None,
) -> list[Answer]:
    """Answer a batch of encoded prompts at once, as transformers does.

    `generation` holds GenerationConfig's arguments and `repetition_penalty_scope`; temperature 0 is greedy. At the
    template's `headings` an answer ends, as at `stop_strings`, which are no part of it either. `stopped` is asked at
    each token; where it says so, answers are what there is of them, as at the length limit (None: nobody stops them).
    Rows are padded on the left, so that each answers as it would alone.
    """
    settings = effective_settings(generation)
    streams = settings.get("num_beams", 1) == 1  # beams end before they can be streamed
    inputs = _inputs(model, tokenizer, prompts, settings)
    checked, prompt_tokens = inputs["logits_processor"][0], inputs["input_ids"].shape[1]
    ends = AnswerEnds(tokenizer, headings, settings.get(STOP_STRINGS, ()))
    criteria = [checked.ends, *[ends.criterion(prompt_tokens)] * ends.any]
    if stopped:
        criteria.append(lambda ids, scores: torch.full((len(ids),), stopped(), device=ids.device))
    output = model.generate(**inputs, stopping_criteria=criteria, streamer=streamer if streams else None)
    checked.check()
    return [_answer(tokenizer, row.tolist(), ends) for row in output[:, prompt_tokens:]]


def generate_all(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    settings: Sequence[Mapping[str, Any]],
    budget: int,
    seeds: Sequence[int] | None = None,
    headings: Sequence[str] = (),
    watch: Watch | None = None,
) -> Iterator[tuple[int, int, Answer]]:
    """Answer many encoded prompts under each of several settings (see `generate`), in batches of `budget` tokens.

    Hands out (number of the setting, place of the prompt, answer) as they end. Settings share the reading of the
    prompts, and rows that have ended make room for others (see `decode_all`); settings that bind rows together do not.
    `seeds` are the prompts' own, so that a sampled answer depends on nothing else; None: torch's random state.
    `watch` is told of the work (see `sft.generation.pace`).
    """
    if seeds is None:
        seeds = torch.randint(2**62, (len(prompts),)).tolist()
    together = [number for number, generation in enumerate(settings) if _can_refill(model, generation)]
    for number in sorted({*range(len(settings))} - {*together}):
        for batch in batches(prompts, settings[number]["max_new_tokens"], budget):
            torch.manual_seed(seeds[batch[0]])
            its_prompts = [prompts[place] for place in batch]
            answers = generate(model, tokenizer, its_prompts, settings[number], headings=headings)
            if watch:
                tokens = sum(answer.tokens for answer in answers)
                watch([len(prompt) for prompt in its_prompts], tokens, tokens)
            yield from zip([number] * len(batch), batch, answers, strict=True)
    if not together:
        return
    effective = [effective_settings(settings[number]) for number in together]

    def prepare(places: Sequence[int], setting: int) -> Prepared:
        inputs = _inputs(model, tokenizer, [prompts[place] for place in places], effective[setting])
        return model.generate(**inputs, past_key_values=growing_cache(model.config), custom_generate=_hand_over)

    new_tokens = max(generation["max_new_tokens"] for generation in effective)
    ends = [AnswerEnds(tokenizer, headings, generation.get(STOP_STRINGS, ())) for generation in effective]
    decoded = decode_all(base_of(model), prompts, seeds, ends, prepare, new_tokens, budget, watch)
    for setting, place, tokens in decoded:
        yield together[setting], place, _answer(tokenizer, tokens, ends[setting])


def _can_refill(model: Any, generation: Mapping[str, Any]) -> bool:
    free = all(generation.get(key, default) == default for key, default in _WHOLE_BATCH.items())
    return free and can_join(model.config)


def _inputs(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `generate` of transformers is called with to answer `prompts` under effective `settings`."""
    padding, rows = tokenizer.pad_token_id, [torch.tensor(prompt, device=model.device) for prompt in prompts]
    # By position, never by id: the padding token may be the end of text, and stand in a prompt.
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    remedy = wider_format(base_of(model), model.dtype)
    processors = LogitsProcessorList([CheckedLogits(remedy, bool(settings.get("do_sample")))])
    if PENALTY in settings:
        processors.append(ScopedRepetitionPenalty(settings[PENALTY], settings.get(SCOPE, DEFAULT_SCOPE), mask))
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=padding, padding_side="left"),
        "attention_mask": mask,
        "generation_config": library_config(settings, pad_token_id=padding, eos_token_id=eos_id(tokenizer)),
        "logits_processor": processors,
    }


def _hand_over(model: Any, input_ids: torch.Tensor, **prepared: Any) -> Prepared:
    """A decoding loop for `generate` of transformers that decodes nothing, but returns what it was prepared."""
    return input_ids, prepared


_WHOLE_BATCH = {
    "num_beams": 1,
    "use_cache": True,
    "cache_implementation": None,
    "guidance_scale": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "watermarking_config": None,
    "max_time": None,
}
"""Settings whose other values bind the rows of a batch together, with the value that does not."""


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: AnswerEnds) -> Answer:
    eos = eos_id(tokenizer)
    ended = eos in tokens
    body = tokens[: tokens.index(eos)] if ended else tokens
    text, reason = ends.cut(text_of(tokenizer, body), ended)
    if reason is None:
        return Answer(text, "eos" if ended else "length", len(body) + ended)
    while body[-1] == tokenizer.pad_token_id:  # which transformers fills up a row with that has ended before others
        body = body[:-1]
    return Answer(text, reason, len(body))
