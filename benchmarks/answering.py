"""How much faster batches answer than one row at a time: the same run, rows and settings, interleaved.

    python -m benchmarks.answering runs/demo [section.key=value …] [--rows 32] [--repeats 3]

Prints tokens a second of both, the share of equal answers (all of them in float32), and `ratio answering-… VALUE`,
for answers that end where they end and for answers of one fixed length.
"""

import argparse
import statistics
import time
from pathlib import Path

from tqdm import tqdm

from sft.answerer import Answerer, load_answerer
from sft.errors import exit_on_user_error
from sft.generation import Answer, batches
from sft.run import require_finished

FIXED_LENGTH = 32


def main() -> None:
    """Read the command line, time both ways in turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--rows", type=int, default=32, help="held-out rows to answer")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        require_finished(arguments.run)
        answerer = load_answerer(arguments.run, arguments.overrides)
        prompts = held_out_prompts(answerer, arguments.rows)
        plain = dict(answerer.generation)
        fixed = {"max_new_tokens": FIXED_LENGTH, "min_new_tokens": FIXED_LENGTH}
        for name, settings in (("own-length", {}), ("fixed-length", fixed)):
            answerer.generation = plain | settings
            compare(name, answerer, prompts, arguments.repeats)


def held_out_prompts(answerer: Answerer, rows: int) -> list[list[int]]:
    """The encoded prompts of the first test rows, which are in hash order."""
    from sft.run import read_side, training_data

    examples = read_side(answerer.run, "test", training_data(answerer.run, answerer.config))[:rows]
    return [answerer.prompt(example.instruction, example.input).ids for example in examples]


def compare(name: str, answerer: Answerer, prompts: list[list[int]], repeats: int) -> None:
    """Time both ways `repeats` times in turns and print the medians."""
    seconds: dict[str, list[float]] = {"one by one": [], "batched": []}
    answers: dict[str, list[Answer]] = {}
    budget = answerer.config.eval.batch_tokens
    for _ in tqdm(range(repeats), desc=name, unit="round"):
        for way, tokens in (("one by one", 1), ("batched", budget)):
            started = time.perf_counter()
            answers[way] = answer_all(answerer, prompts, tokens)
            seconds[way].append(time.perf_counter() - started)
    for way, found in answers.items():
        count, middle = sum(answer.tokens for answer in found), statistics.median(seconds[way])
        print(f"{name:13} {way:10} {len(found)} answers, {count} tokens, {middle:.1f} s, {count / middle:.1f} tokens/s")
    pairs = zip(*answers.values(), strict=True)
    print(f"{name:13} equal answers: {sum(a.text == b.text for a, b in pairs)} of {len(prompts)}")
    one, batched = (statistics.median(times) for times in seconds.values())
    print(f"ratio answering-{name} {one / batched:.2f}")


def answer_all(answerer: Answerer, prompts: list[list[int]], batch_tokens: int) -> list[Answer]:
    """Answers in the order of the prompts; a budget of 1 token makes batches of one row."""
    answers: dict[int, Answer] = {}
    for batch in batches(prompts, answerer.generation["max_new_tokens"], batch_tokens):
        answers |= zip(batch, answerer.answer([prompts[place] for place in batch]), strict=True)
    return [answers[place] for place in range(len(prompts))]


if __name__ == "__main__":
    main()
