"""How much faster batches answer than one row at a time: the same run, rows and greedy settings, in turns.

    python -m benchmarks.answering runs/demo [section.key=value …] [--rows 32] [--tokens 32] [--repeats 3]

`fixed`: every answer has `--tokens` tokens, since none may end. `varied`: answers end where they end, after twice as
many at the latest.
Prints the medians of both ways, how many answers are equal (all of them in float32, or the exit status is 1), and
`ratio answering_fixed VALUE` and `ratio answering_varied VALUE`: of CPU time on a CPU, of the clock's on a GPU.
"""

import itertools
import statistics
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.turns import print_ratios
from sft.data.rows import examples_of
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.generation.generate import Answer, generate_all
from sft.prompt.encode import eos_id
from sft.run.directory import require_finished
from sft.run.held_out import read_side, training_data
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error


def main() -> None:
    """Read the command line, time both ways in turns, and print the ratios."""
    parser = command_parser(__doc__, "python -m benchmarks.answering")
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--rows", type=int, default=32, help="held-out rows to answer")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer of fixed length")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.read()
    with exit_on_user_error():
        require_finished(arguments.run)
        answerer = load_answerer(open_run(arguments.run, arguments.overrides))
        prompts = held_out_prompts(answerer, arguments.rows)
        greedy = answerer.generation | {"temperature": 0.0}
        lengths = {
            "fixed": {"max_new_tokens": arguments.tokens, "suppress_tokens": [eos_id(answerer.tokenizer)]},
            "varied": {"max_new_tokens": 2 * arguments.tokens},
        }
        equal = True
        for name, settings in lengths.items():
            answerer.generation = greedy | settings
            equal &= compare(name, answerer, prompts, arguments.repeats)
        if answerer.config.model.dtype == "float32" and not equal:
            raise SystemExit(1)


def held_out_prompts(answerer: Answerer, rows: int) -> list[list[int]]:
    """The encoded prompts of the first test rows, which are in hash order."""
    examples = examples_of(read_side(answerer.run, "test", training_data(answerer.run, answerer.config)))
    return [answerer.prompt(example.instruction, example.input).ids for example in itertools.islice(examples, rows)]


def compare(name: str, answerer: Answerer, prompts: list[list[int]], repeats: int) -> bool:
    """Time both ways `repeats` times in turns and print the medians. Returns whether all answers are equal."""
    times: dict[str, list[tuple[float, float]]] = {"one by one": [], "batched": []}
    answers: dict[str, list[Answer]] = {}
    for _ in tqdm(range(repeats), desc=name, unit="round"):
        for way, budget in (("one by one", 1), ("batched", answerer.config.eval.batch_tokens)):
            cpu, clock = time.process_time(), time.perf_counter()
            found = generate_all(answerer.model, answerer.tokenizer, prompts, [answerer.generation], budget)
            answers[way] = [answer for _, _, answer in sorted(found, key=lambda item: item[1])]
            times[way].append((time.process_time() - cpu, time.perf_counter() - clock))
    middle = {way: [statistics.median(seconds) for seconds in zip(*found, strict=True)] for way, found in times.items()}
    for way, (cpu, clock) in middle.items():
        tokens = sum(answer.tokens for answer in answers[way])
        print(f"{name:6} {way:10} {tokens} tokens, {cpu:.1f} s of CPU, {clock:.1f} s on the clock")
    equal = sum(a == b for a, b in zip(*answers.values(), strict=True))
    print(f"{name:6} equal answers: {equal} of {len(prompts)}")
    measured = 0 if answerer.model.device.type == "cpu" else 1
    print_ratios({f"answering_{name}": middle["one by one"][measured] / middle["batched"][measured]})
    return equal == len(prompts)


if __name__ == "__main__":
    main()
