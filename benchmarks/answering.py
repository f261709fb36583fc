"""How much faster this project answers than transformers' own `generate` at its best, and than one row at a time.

    python -m benchmarks.answering runs/demo [section.key=value …] [--rows 32] [--tokens 64] [--repeats 3]

The peer is `generate` as a careful user calls it: prompts sorted by length, in left-padded batches of the same budget
of padded tokens, with the same greedy settings. All ways answer the same held-out rows in turns in one process, those
with a context (`context`) and those without (`open`) apart; answers end where they end, after `--tokens` at the latest.
Prints the medians of all ways, how many answers are equal (all of them in float32, or the exit status is 1), and
`ratio answering_context VALUE` and `ratio answering_open VALUE`, ours against the peer: of CPU time on a CPU, of the
clock's on a GPU. Answering one by one comes last, and once: it takes long, and nobody has to.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import LogitsProcessorList

from benchmarks.turns import count, print_ratios
from sft.config.repetition_penalty import DEFAULT_SCOPE, PENALTY, SCOPE
from sft.data.rows import examples_of
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.generation.batch.decoding import batches
from sft.generation.generate import generate_all, library_config
from sft.generation.penalty import ScopedRepetitionPenalty
from sft.generation.settings import effective_settings
from sft.generation.streamer import decode
from sft.model.lora import base_of
from sft.prompt.encode import eos_id
from sft.run.directory import require_finished
from sft.run.held_out import read_side, training_data
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error

Found = tuple[list[str], int]
"""The answers, and how many tokens they have together."""


def main() -> None:
    """Read the command line, time all ways in turns, and print the ratios."""
    parser = command_parser(__doc__, "python -m benchmarks.answering")
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--rows", type=count, default=32, help="held-out rows of each kind to answer")
    parser.add_argument("--tokens", type=count, default=64, help="the most tokens of an answer")
    parser.add_argument("--repeats", type=count, default=3)
    arguments = parser.read()
    with exit_on_user_error():
        require_finished(arguments.run)
        answerer = load_answerer(open_run(arguments.run, arguments.overrides))
        answerer.generation |= {"temperature": 0.0, "max_new_tokens": arguments.tokens}
        equal = True
        for kind in ("context", "open"):
            prompts = held_out_prompts(answerer, kind == "context", arguments.rows)
            equal &= compare(kind, answerer, prompts, arguments.repeats)
        if answerer.config.model.dtype == "float32" and not equal:
            raise SystemExit(1)


def held_out_prompts(answerer: Answerer, with_context: bool, rows: int) -> list[list[int]]:
    """The encoded prompts of the first test rows that have a context, or have none; test rows are in hash order."""
    examples = examples_of(read_side(answerer.run, "test", training_data(answerer.run, answerer.config)))
    chosen = itertools.islice((one for one in examples if bool(one.input) == with_context), rows)
    prompts = [answerer.prompt(example.instruction, example.input).ids for example in chosen]
    if not prompts:
        raise UserError(f"no held-out row {'has a' if with_context else 'is without'} context; name a run with both")
    return prompts


def ours(answerer: Answerer, prompts: list[list[int]], budget: int) -> Found:
    """This project's way; with a budget of 1, one prompt at a time."""
    found = generate_all(answerer.model, answerer.tokenizer, prompts, [answerer.generation], budget)
    answers = [answer for _, _, answer in sorted(found, key=lambda item: item[1])]
    return [answer.text for answer in answers], sum(answer.tokens for answer in answers)


@torch.inference_mode()
def sorted_generate(answerer: Answerer, prompts: list[list[int]], budget: int) -> Found:
    """transformers' `generate`, one batch of prompts of similar length after another."""
    tokenizer, settings, end = answerer.tokenizer, effective_settings(answerer.generation), eos_id(answerer.tokenizer)
    config = library_config(settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=end)
    texts, tokens = [""] * len(prompts), 0
    for batch in batches(prompts, settings["max_new_tokens"], budget):
        padded: Any = tokenizer.pad(
            {"input_ids": [prompts[place] for place in batch]}, padding_side="left", return_tensors="pt"
        ).to(answerer.model.device)
        penalty = LogitsProcessorList()
        if PENALTY in settings:
            scope = settings.get(SCOPE, DEFAULT_SCOPE)
            penalty.append(ScopedRepetitionPenalty(settings[PENALTY], scope, padded["attention_mask"]))
        output = base_of(answerer.model).generate(**padded, generation_config=config, logits_processor=penalty)
        for place, row in zip(batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            answer = row[: row.index(end) + 1] if end in row else row
            texts[place] = decode(tokenizer, answer)
            tokens += len(answer)
    return texts, tokens


WAYS: dict[str, Callable[[Answerer, list[list[int]], int], Found]] = {
    "ours": ours,
    "sorted generate": sorted_generate,
    "one by one": lambda answerer, prompts, budget: ours(answerer, prompts, 1),
}


def compare(kind: str, answerer: Answerer, prompts: list[list[int]], repeats: int) -> bool:
    """Time ours and the peer `repeats` times in turns, then one by one once, and print the medians.

    Returns whether all answers are equal.
    """
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    found: dict[str, Found] = {}
    *turns, last = WAYS
    for way in tqdm(turns * repeats + [last], desc=kind, unit="turn"):
        cpu, clock = time.process_time(), time.perf_counter()
        found[way] = WAYS[way](answerer, prompts, answerer.config.eval.batch_tokens)
        times[way].append((time.process_time() - cpu, time.perf_counter() - clock))
    middle = {way: [statistics.median(seconds) for seconds in zip(*of, strict=True)] for way, of in times.items()}
    measured = 0 if answerer.model.device.type == "cpu" else 1
    print(f"{kind}: {len(prompts)} prompts of {sum(map(len, prompts))} tokens")
    equal = True
    for way, (cpu, clock) in middle.items():
        texts, tokens = found[way]
        same = sum(a == b for a, b in zip(texts, found[last][0], strict=True))
        equal &= same == len(prompts)
        per_second = tokens / middle[way][measured]
        print(
            f"{kind:7} {way:15} {tokens} tokens, {cpu:.1f} s of CPU, {clock:.1f} s on the clock, "
            f"{per_second:.1f} tokens/s, {same} of {len(prompts)} as one by one"
        )
    print_ratios({f"answering_{kind}": middle["sorted generate"][measured] / middle["ours"][measured]})
    return equal


if __name__ == "__main__":
    main()
