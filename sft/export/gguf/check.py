"""What llama.cpp makes of a GGUF file: the tokens that it reads questions as, and its greedy answers."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sft.export.gguf.llama_cpp import LlamaCpp
from sft.export.merge_check import NEW_TOKENS, CheckRow
from sft.prompt.encode import eos_id
from sft.system.errors import UserError

CLOSE = 0.05
"""Nats between the two best tokens, under which arithmetic in another order may choose the other one."""


class Greedy(NamedTuple):
    """A greedy answer's tokens, end of text included, and by how many nats each was better than the second best."""

    tokens: list[int]
    leads: list[float]


@dataclasses.dataclass(frozen=True)
class GgufCheck:
    """Greedy answers of llama.cpp against those of the merged model in transformers."""

    file: str
    rows: int
    asked: int
    """Rows whose question was sent as a conversation, and read as the run's tokens."""
    dtype: str
    """Of the merged model."""
    equal: int
    close: int
    """Answers that first differ at or behind a token that was better than the second best by less than `CLOSE`."""
    engine: str
    """llama.cpp's own name of its version."""

    def line(self) -> str:
        """The check in words."""
        return (
            f"{self.file} in llama.cpp ({self.engine}) against the merged model in transformers in {self.dtype}: the "
            f"same tokens of {self.asked} questions; {self.equal} of {self.rows} greedy answers are equal, "
            f"{self.close} differ from a token on whose two best were closer than {CLOSE} nats, "
            f"{self.rows - self.equal - self.close} differ otherwise"
        )


@torch.inference_mode()
def greedy(model: PreTrainedModel, tokenizer: Any, rows: Sequence[CheckRow]) -> list[Greedy]:
    """The model's greedy answers to the rows' prompts, without any penalty."""
    answers, end = [], eos_id(tokenizer)
    for row in rows:
        given = torch.tensor([row.prompt], device=model.device)
        output = model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, num_beams=1, max_new_tokens=NEW_TOKENS,
            eos_token_id=end, pad_token_id=end, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        best = [step[0].float().topk(2).values for step in output.logits]
        leads = [(first - second).item() for first, second in best]
        answers.append(Greedy(output.sequences[0, len(row.prompt) :].tolist(), leads))
    return answers


def check_gguf(
    llama_cpp: LlamaCpp, weights: Path, model: PreTrainedModel, tokenizer: Any, rows: Sequence[CheckRow]
) -> GgufCheck:
    """Ask llama.cpp's server over the file `weights` the rows' questions, and compare with `model`, which is merged.

    Raises UserError where it reads a question as other tokens, and, where file and model are both in 32 bits, where an
    answer differs that should not.
    """
    expected = greedy(model, tokenizer, rows)
    with llama_cpp.serving(weights, max(len(row.prompt) for row in rows) + NEW_TOKENS) as ask:
        for row in rows:
            if row.messages and read_as(ask, row.messages) != row.prompt:
                raise UserError(
                    f"{weights.name}: llama.cpp reads {row.messages[-1]['content']!r:.80} as other tokens than the run"
                )
        given = [answered(ask, row.prompt, eos_id(tokenizer)) for row in rows]
        engine = ask("/props", None)["build_info"]
    same = [answer == theirs.tokens for answer, theirs in zip(given, expected, strict=True)]
    close = [not equal and is_close(*pair) for equal, *pair in zip(same, given, expected, strict=True)]
    dtype, asked = str(model.dtype).removeprefix("torch."), sum(bool(row.messages) for row in rows)
    found = GgufCheck(weights.name, len(rows), asked, dtype, sum(same), sum(close), engine)
    exact = model.dtype == torch.float32 and weights.stem.endswith("-f32")
    if exact and found.equal + found.close < found.rows:
        raise UserError(f"{found.line()}: something is lost in the conversion, so nothing was exported")
    return found


def read_as(ask: Callable[..., Any], messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids that the server makes of a conversation."""
    prompt = ask("/apply-template", {"messages": messages})["prompt"]
    return ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]


def answered(ask: Callable[..., Any], prompt: Sequence[int], end: int) -> list[int]:
    """The server's greedy answer to a prompt of ids, `end` included where it ended."""
    body = {"prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0, "repeat_penalty": 1, "return_tokens": True}
    answer = ask("/completion", body)
    tokens = [token for token in answer["tokens"] if token != end]
    return tokens + [end] * (answer["stop_type"] == "eos")


def is_close(answer: Sequence[int], expected: Greedy) -> bool:
    """Whether the first token that differs is one, or comes behind one, that was only just better than another."""
    equal = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(answer, expected.tokens, strict=False))
    )
    return min(expected.leads[: equal + 1]) < CLOSE
