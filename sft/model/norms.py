"""RMSNorm compiled for a CPU: once over memory forward and once back, in place of a dozen times
(see docs/performance.md)."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from sft.system.errors import first_line, warn

WORTH = 100_000
"""Tokens of a training from which on compiling, which takes five to fifteen seconds, takes less than it saves."""
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def compile_norms(model: PreTrainedModel) -> bool:
    """Compile the RMSNorms of `model`, which is on a CPU, for passes that gradients follow.

    What they compute is rounded otherwise: in 16 bits once where some models round twice.

    Returns:
        Whether that was done: False where there are none, and, after a warning, where this machine cannot compile.
    """
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    # A process that compiles by itself, since others would wait in memory for the training's end.
    options = {"compile_threads": 1}
    forwards: dict[type, Forward] = {type(norm): type(norm).forward for norm in norms}
    kinds = {kind: torch.compile(own, dynamic=True, options=options) for kind, own in forwards.items()}
    if not norms:
        return False
    if problem := _problem(norms[0], kinds[type(norms[0])]):
        warn([f"the model's norms are not compiled, so a step takes longer: {problem}; a C++ compiler (g++) helps"])
        return False
    for norm in norms:
        norm.forward = functools.partial(_forward, norm, kinds[type(norm)])
    return True


def _forward(norm: nn.Module, compiled: Forward, states: torch.Tensor) -> torch.Tensor:
    # Where no gradient follows there is less to gain, and one more function to compile.
    return compiled(norm, states) if states.requires_grad else type(norm).forward(norm, states)


def _problem(norm: nn.Module, compiled: Forward) -> str | None:
    """Why it does not work here; None: it does."""
    from torch._dynamo.exc import BackendCompilerFailed  # no public name; and a second that `--help` need not wait

    weight = next(norm.parameters())
    states = weight.new_zeros(1, 64, len(weight)).requires_grad_()
    try:
        compiled(norm, states).sum().backward()
    except (BackendCompilerFailed, OSError) as error:  # OSError: the directory for what is compiled
        return first_line(error)
    finally:
        weight.grad = None
    return None
