"""8-bit layers forget their inputs, which bitsandbytes keeps for the gradient of weights that are frozen here."""

import inspect
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.autograd import _functions as products
from transformers import PreTrainedModel

from sft.system.errors import warn
from sft.system.files import text_sha256

KNOWN_CODE = {
    "MatMul8bitLt": "eca4a9bde5e5f5dba2a9fbb1205a505250185871fd41454e5314e7a23f3c4784",
    "MatMul8bitFp": "921d39851556bbcab123726b3dcb2c1064920c1c241f13e0cbccf056c2ecbdde",
}
"""SHA-256 of the source of bitsandbytes 0.50.2's 8-bit products: on a GPU, and on a CPU."""


def forget_inputs(model: PreTrainedModel) -> None:
    """Let the 8-bit layers of a frozen `model` keep nothing of their inputs for the backward pass.

    bitsandbytes holds them beside what PyTorch's graph saves, where activation checkpointing cannot free them. Where
    its code is not the one that is known, everything stays as it is, and a warning says so.
    """
    if any(_code(name) != known for name, known in KNOWN_CODE.items()):
        warn([
            f"bitsandbytes {bitsandbytes.__version__}: its 8-bit layers may keep their inputs, which takes more memory "
            "than is estimated; what is done about it is known for 0.50.2 only"
        ])  # fmt: skip
        return
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
            layer.register_forward_hook(_forget)


def _code(name: str) -> str | None:
    try:
        return text_sha256([inspect.getsource(getattr(products, name))])
    except (AttributeError, OSError):  # there is no such product, or no source of it
        return None


def _forget(layer: Any, inputs: Any, output: torch.Tensor) -> None:
    product: Any = output.grad_fn  # the `ctx` of the product's own forward and backward
    if product is None or getattr(product, "is_empty", False) or product.needs_input_grad[1]:
        return
    if hasattr(product, "tensors"):  # MatMul8bitLt
        product.tensors, product.tensor_states = (None, None, None), (None, None)
    else:  # MatMul8bitFp
        product.A = None
