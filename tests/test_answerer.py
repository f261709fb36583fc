"""A run's two systems: the adapter merged into the weights answers as the adapter does, and the base stays the base."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sft.generation.answerer import Answerer, merge_adapter
from sft.model.load import load_base

IDS = torch.tensor([[5, 6, 7, 8, 9, 200, 300]])
ADAPTERS = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA with a bias": {"use_rslora": True, "lora_bias": True},
    "all linear layers": {"target_modules": "all-linear"},
}


def adapted(base, **lora):
    torch.manual_seed(0)
    lora = {"target_modules": ["query_key_value"], "init_lora_weights": False} | lora
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, **lora)).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS.to(model.device)).logits


def answerer_of(model, base_weights):
    config = SimpleNamespace(generation={"max_new_tokens": 8}, lora={"r": 4})
    return Answerer(None, config, model, None, None, base_weights, "")


@pytest.mark.parametrize("order", [("base", "tuned", "base"), ("tuned", "base", "tuned")], ids=" ".join)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_merged_run_answers_as_tuned_and_as_exactly_the_base(tiny_base, adapter, order):
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    expected = {"base": logits(base)}
    apart = adapted(AutoModelForCausalLM.from_pretrained(tiny_base), **ADAPTERS[adapter])
    expected["tuned"] = logits(apart)
    assert (expected["tuned"] - expected["base"]).abs().max() > 0.01
    answerer = answerer_of(*merge_adapter(apart))
    assert not [name for name, _ in answerer.model.named_modules() if "lora" in name]
    for system in order:
        with answerer.as_system(system):
            found = logits(answerer.model)
        if system == "base":
            assert found.equal(expected["base"])
        torch.testing.assert_close(found, expected[system], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(answerer.model), expected["tuned"], rtol=1e-5, atol=1e-5)


def test_an_error_while_the_base_answers_leaves_the_tuned_model(tiny_base):
    answerer = answerer_of(*merge_adapter(adapted(AutoModelForCausalLM.from_pretrained(tiny_base))))
    tuned = logits(answerer.model)
    with pytest.raises(KeyboardInterrupt), answerer.as_system("base"):
        raise KeyboardInterrupt
    assert logits(answerer.model).equal(tuned)


def test_an_adapter_on_quantised_weights_stays_apart(tiny_base):
    quantised = load_base(str(tiny_base), torch.device("cpu"), torch.float32, {"load_in_8bit": True})
    base = logits(quantised)
    apart = adapted(quantised)
    tuned = logits(apart)
    answerer = answerer_of(*merge_adapter(apart))
    assert answerer.model is apart
    assert logits(answerer.model).equal(tuned)
    with answerer.as_system("base"):
        assert logits(answerer.model).equal(base)


def test_an_adapter_on_weights_that_the_head_shares_stays_apart(tiny_base):
    tied = AutoModelForCausalLM.from_pretrained(tiny_base)
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight
    apart = adapted(tied, target_modules=["embed_in"])
    tuned = logits(apart)
    model, base_weights = merge_adapter(apart)
    assert model is apart
    assert base_weights == {}
    assert logits(model).equal(tuned)
