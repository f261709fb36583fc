"""Runs `train_sft.py` several times on each of the processes that torchrun starts: importing the libraries is the cost.

Argument: a JSON file with a list of [environment, words], environment in addition to this process's own. With
STOP_AT_STEP there, a training ends at that step and the next begins; with DIE_AT_STEP, the first process dies.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

import train_sft
from sft.training.log import RunLog

_initialise = AcceleratorState.__init__


def _with_fsdp_on_cpu(self, *args, fsdp_plugin=None, **kwargs):
    """accelerate takes FSDP up on accelerators alone; all that follows from it runs on CPUs as well."""
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = _with_fsdp_on_cpu  # type: ignore[method-assign]

_log = RunLog.on_log


class Stopped(Exception):
    """The training was to end here."""


def _log_and_stop(self, args, state, *others, **kwargs):
    _log(self, args, state, *others, **kwargs)
    if str(state.global_step) == os.environ.get("STOP_AT_STEP"):
        raise Stopped
    if str(state.global_step) == os.environ.get("DIE_AT_STEP") and os.environ["RANK"] == "0":
        os._exit(9)


RunLog.on_log = _log_and_stop  # type: ignore[method-assign]

jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
if any("ACCELERATE_USE_DEEPSPEED" in environment for environment, _ in jobs):
    import deepspeed.comm  # type: ignore[import-not-found]  # noqa: F401

    # It would be compiled for minutes, and is for speed alone.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]

for environment, words in jobs:
    os.environ.update(environment)
    sys.argv = ["train_sft.py", *words]
    with contextlib.suppress(Stopped):
        train_sft.main()
    for name in environment:
        del os.environ[name]
