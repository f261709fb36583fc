"""What only a GPU can show: is packing exact there, how fast is it, does it fit. At most 8 minutes on one card.

    python -m benchmarks.gpu [--base MODEL] [--data data/sample.jsonl] [--seconds 480] [--output scratch/gpu]
    python -m benchmarks.gpu --device cpu --tiny

Without --base, a GPT-NeoX of open-calm-7b's shape with random weights is made in scratch/ (13.7 GB) and stays there for
the next time. Every part runs in a process of its own and has its share of the seconds. Results are appended to
results.jsonl in the output directory as they come, and shown in results.md, which also names everything that was not
measured and why; log.txt has what the libraries print.

`--tiny` measures a model of a few MB, to see that the benchmark works: its numbers mean nothing. The exit status is 1
when something failed: packed rows are not exact, a configuration for 24 GB does not train in them, or a part broke.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu.parts import PARTS
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error, say


def main() -> None:
    """Read the command line; run all parts, or one of them in this process."""
    parser = command_parser(__doc__, "python -m benchmarks.gpu")
    parser.add_argument("--base", help="a hub id or directory in place of random weights")
    parser.add_argument(
        "--data",
        default="data/sample.jsonl",
        help="rows; the first ones are the step's, the sample's as long as dolly-ja's",
    )
    parser.add_argument("--seconds", type=float, default=480, help="for everything")
    parser.add_argument("--output", type=Path, default=Path("scratch/gpu"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", choices=[part.name for part in PARTS], help=argparse.SUPPRESS)
    arguments = parser.read()
    if arguments.base is None or Path(arguments.base).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with more of them, transformers would share out the batches
    with exit_on_user_error():
        sys.exit(measure(arguments))


def measure(arguments: argparse.Namespace) -> bool:
    """Run what the command line says; true when something failed, or it was not measured whether packing is exact."""
    from benchmarks.gpu.results import read
    from benchmarks.gpu.run import record, run_parts
    from benchmarks.gpu.table import document
    from benchmarks.gpu.work import CALM7B, TINY, Work, random_base
    from sft.model.load import load_base_config
    from sft.model.place import resolve_device
    from sft.system.files import write_whole

    if not arguments.seconds >= 1:  # a number that is none is not, either
        raise UserError("--seconds: at least one second, such as 480")
    if arguments.device == "cpu" and not arguments.tiny:
        raise UserError("--device cpu: a model of 7 billion weights is not for a CPU; add --tiny")
    size = TINY if arguments.tiny else CALM7B
    base = arguments.base or str(random_base(arguments.data, size))
    work = Work(resolve_device(arguments.device), size, base, arguments.data)
    if arguments.base and not arguments.part:
        load_base_config(base)  # or every part would find out by itself that there is no such model
    results, shown = arguments.output / "results.jsonl", arguments.output / "results.md"
    if arguments.part:
        record(next(part for part in PARTS if part.name == arguments.part), work, results)
        return False
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "log.txt"):
        (arguments.output / name).unlink(missing_ok=True)
    for _ in run_parts(sys.argv[1:], arguments.seconds, results, arguments.output / "log.txt"):
        write_whole(shown, document(found := read(results)))
    print(document(found))
    say(f"also in {shown}; the numbers are in {results}")
    exact = any(result.part == "exactness" and result.status == "measured" for result in found)
    return not exact or any(result.status == "failed" for result in found)


if __name__ == "__main__":
    main()
