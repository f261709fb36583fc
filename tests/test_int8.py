"""8-bit layers keep nothing of their inputs for the backward pass, and their gradients are what they were."""

import gc
import weakref

import pytest
import torch

from sft.build_base import build_tiny
from sft.model import int8
from sft.model.load import load_base
from sft.model.lora import add_lora

LAYERS = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("int8") / "base"
    build_tiny(directory, layers=LAYERS)
    return str(directory)


def forward(base, checkpointing):
    """A forward pass of an 8-bit model with LoRA: the model, a loss, and references to the 8-bit layers' inputs."""
    torch.manual_seed(0)
    frozen = load_base(base, torch.device("cpu"), torch.bfloat16, {"load_in_8bit": True})
    model = add_lora(frozen, {"r": 4, "target_modules": ["query_key_value"]}).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    inputs = []
    for name, layer in model.named_modules():
        # Those of the other layers are LoRA's input, and what attention itself keeps.
        if name.endswith(("dense_h_to_4h", "dense_4h_to_h")):
            layer.register_forward_pre_hook(lambda _, given: inputs.append(weakref.ref(given[0].untyped_storage())))
    ids = torch.randint(5, 900, (2, 64))
    loss = model.get_base_model().base_model(input_ids=ids, use_cache=False).last_hidden_state.float().pow(2).sum()
    gc.collect()
    return model, loss, inputs


def alive(references):
    return sum(reference() is not None for reference in references)


def gradients(model, loss):
    loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_inputs_are_forgotten_and_gradients_are_the_same(base, checkpointing, monkeypatch):
    model, loss, inputs = forward(base, checkpointing)
    assert (len(inputs), alive(inputs)) == (2 * LAYERS, 0)
    ours = gradients(model, loss)
    monkeypatch.setattr(int8, "forget_inputs", lambda model: None)
    model, loss, inputs = forward(base, checkpointing)
    assert alive(inputs) == 2 * LAYERS, "bitsandbytes keeps them no more: what is done about it can go"
    theirs = gradients(model, loss)
    assert len(ours) == 2 * LAYERS
    assert all(gradient.abs().sum() > 0 for gradient in ours)
    assert all(map(torch.equal, ours, theirs))


def test_the_product_of_gpus_forgets_its_input_too():
    """`MatMul8bitLt`, which a GPU takes, runs on a CPU as well; its gradient of the input is the same."""
    from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState
    from bitsandbytes.functional import int8_vectorwise_quant

    torch.manual_seed(0)
    state = MatmulLtState()
    state.has_fp16_weights, state.threshold = False, 6.0  # as transformers loads it
    state.CB, state.SCB, _ = int8_vectorwise_quant(torch.randn(24, 16, dtype=torch.float16))
    given = torch.randn(2, 5, 16, dtype=torch.bfloat16)
    given[0, 1, 3] = 30.0  # an outlier, which is multiplied in 16 bits
    found = []
    for forget in (False, True):
        leaf = given.clone().requires_grad_()
        states = leaf * 1
        kept = weakref.ref(states.untyped_storage())
        output = MatMul8bitLt.apply(states, state.CB, None, None, state)
        del states
        assert kept() is not None
        if forget:
            int8._forget(None, None, output)
            assert kept() is None
        output.float().pow(2).sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)


def test_another_version_of_bitsandbytes_is_left_alone_and_named(base, monkeypatch, capsys):
    monkeypatch.setitem(int8.KNOWN_CODE, "MatMul8bitLt", "another")
    _, _, inputs = forward(base, False)
    assert alive(inputs) == 2 * LAYERS
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert "bitsandbytes 0.50.2: its 8-bit layers may keep their inputs" in line
