"""LoRA's products have the type of their layer's input, its weights stay fp32."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sft.model.lora import InputTypeLinear, add_lora

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": False, "target_modules": "all-linear"}


def trained(dtype, **lora):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return add_lora(LlamaForCausalLM(config).to(dtype), LORA | lora).train()


def gradients(model):
    ids = torch.arange(60)[None]
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    return torch.cat([gradient.flatten() for gradient in found.values()])


@pytest.mark.parametrize("bias", [False, True])
def test_products_in_16_bits_have_the_gradient_of_peft_in_32(bias):
    model = trained(torch.bfloat16, lora_bias=bias)
    theirs = copy.deepcopy(model)
    for layer in theirs.modules():
        if isinstance(layer, InputTypeLinear):
            layer.__class__ = torch.nn.Linear
        if hasattr(layer, "cast_input_dtype_enabled"):
            layer.cast_input_dtype_enabled = True
    exact, ours, of_peft = (gradients(each) for each in (trained(torch.float32, lora_bias=bias), model, theirs))
    assert 0 < (ours - of_peft).norm() < 0.05 * of_peft.norm()
    assert (ours - exact).norm() < 0.05 * exact.norm()


def test_a_layers_output_is_never_in_32_bits():
    model = trained(torch.bfloat16)
    types = set()
    for layer in model.modules():
        if isinstance(layer, InputTypeLinear):
            layer.register_forward_hook(lambda module, inputs, output: types.update({inputs[0].dtype, output.dtype}))
    gradients(model)
    assert types == {torch.bfloat16}


def test_dora_stays_as_peft_has_it():
    model = trained(torch.bfloat16, use_dora=True)
    assert not any(isinstance(layer, InputTypeLinear) for layer in model.modules())
    assert gradients(model).isfinite().all()


def test_activations_that_are_computed_again_give_the_same_gradient():
    kept, again = trained(torch.bfloat16), trained(torch.bfloat16)
    again.gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(gradients(kept), gradients(again))
