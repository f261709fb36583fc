"""Take configurations for CUDA through a step, validation, an answer and a likelihood on a GPU that is not there.

    python -m benchmarks.shapes [CONFIG …] [--write]

The project's own code runs at the model's real shape, on tensors that have types, devices, lifetimes and no contents:
what does not go together fails, and memory, kernels and waits are counted. Nothing is said of numbers and of speed.
Without CONFIG: every configuration that names CUDA, then the planner's advice for settings that are too large.
--write puts the table into docs/models.md. The exit status is 1 where a promise is not kept.
Needs the CPU build of the torch that requirements.txt pins.
"""

import os
import sys

from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error


def main() -> None:
    """Read the command line; the rest is in `run`."""
    parser = command_parser(__doc__, "python -m benchmarks.shapes")
    parser.add_argument("configs", nargs="*", metavar="CONFIG")
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    arguments = parser.read()
    with exit_on_user_error():
        if arguments.configs and arguments.write:
            raise UserError("--write: the table has all configurations; leave CONFIG out")
        os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        from benchmarks.shapes.run import run

        sys.exit(run(arguments.configs, arguments.write))


if __name__ == "__main__":
    main()
