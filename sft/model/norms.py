"""RMSNorm compiled for a CPU: once over memory forward and once back, in place of a dozen times
(see docs/performance.md)."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from sft.system.errors import first_line, warn

WORTH = 100_000
"""Tokens of a training from which on compiling, which takes three to fifteen seconds, takes less than it saves."""
Forward = Callable[..., torch.Tensor]


def compile_norms(model: PreTrainedModel) -> bool:
    """Compile the RMSNorms of `model`, which is on a CPU, for passes that gradients follow.

    What they compute is rounded otherwise: in 16 bits once where some models round twice.

    Returns:
        Whether that was done: False where there are none, and, after a warning, where this machine cannot compile.
    """
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and _has_weights(module)]
    one_of_each: dict[type, nn.Module] = {type(norm): norm for norm in norms}
    try:
        forwards = {kind: _compiled(norm) for kind, norm in one_of_each.items()}
    except Exception as error:  # whatever a compiler may raise: without it, all is as it was
        remedy = "a C++ compiler and Python's headers (g++, python3-dev) help"
        warn([f"the model's norms are not compiled, so a step takes longer: {first_line(error)}; {remedy}"])
        return False
    for norm in norms:
        norm.forward = functools.partial(_forward, norm, forwards[type(norm)])
    return bool(norms)


def _has_weights(norm: nn.Module) -> bool:
    weight = getattr(norm, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 1


def _compiled(norm: nn.Module) -> Forward:
    """The compiled forward pass of all norms of a kind, tried on one of them."""
    # A process that compiles by itself, since others would wait in memory for the training's end. The limit is for all
    # shapes that there are of one number of dimensions, heads and rows: where it is met, no norm is compiled further.
    options, limit = {"compile_threads": 1}, 64
    forward = torch.compile(type(norm).forward, dynamic=True, options=options, recompile_limit=limit)
    weight: torch.Tensor = norm.weight
    forward(norm, weight.new_zeros(1, 64, len(weight)).requires_grad_()).sum().backward()
    weight.grad = None
    return forward


def _forward(norm: nn.Module, compiled: Forward, *states: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    # Where no gradient follows there is less to gain, and one more function to compile.
    worth = len(states) == 1 and not more and states[0].requires_grad
    return compiled(norm, *states) if worth else type(norm).forward(norm, *states, **more)
