"""What an architecture decides by itself: LoRA's targets where none are named, and the attention it supports."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
)

from sft.model.families import FAMILIES, check_attention, check_checkpointing, default_targets, licence_of
from sft.model.load import load_base, load_base_config, load_skeleton
from sft.model.lora import add_lora, describe_trained
from sft.system.errors import UserError

CPU = torch.device("cpu")


def test_an_architecture_of_pefts_table_has_its_targets_and_one_of_none_is_refused():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
    assert default_targets(bloom) == ["query_key_value"]
    assert describe_trained(add_lora(bloom, {"r": 2})).startswith("LoRA on 1 modules (query_key_value)")
    unknown = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    for kind in ("never-heard-of", "llama4"):
        unknown.config.model_type = kind
        with pytest.raises(UserError, match=f"no default is known for the architecture {kind}; set it to names of"):
            add_lora(unknown, {"r": 2})


def test_the_tables_targets_are_layers_of_the_small_models(small_base):
    small = {"gpt_neox": "rinna", "gpt_neox_japanese": "abeja", "gptj": "genji", "llama": "calm2"}
    small |= {"gemma3_text": "gemma-3", "qwen2": "qwen2.5", "qwen3": "qwen3"}
    assert small.keys() == FAMILIES.keys()
    for kind, name in small.items():
        model = load_base(small_base(name)["base"], CPU, torch.float32)
        assert model.config.model_type == kind
        layers = {
            part.rsplit(".", 1)[-1] for part, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)
        }
        assert layers.issuperset(FAMILIES[kind].targets)


def test_a_licence_is_known_by_the_beginning_of_a_hub_id():
    assert licence_of("cyberagent/open-calm-7b") == "cc-by-sa-4.0"
    assert licence_of("google/gemma-3-270m") == "gemma"
    assert licence_of("Qwen/Qwen2.5-Coder-1.5B-Instruct") == "apache-2.0"
    assert licence_of("Qwen/Qwen3-8B-Base") == licence_of("tokyotech-llm/Qwen3-Swallow-8B-CPT-v0.2") == "apache-2.0"
    assert licence_of("sbintuitions/sarashina2.2-3b") == "mit"
    assert licence_of("sbintuitions/sarashina2-8x70b") is None  # not for commercial use, unlike the others
    assert licence_of("tokyotech-llm/Llama-3.1-Swallow-8B-v0.5") == "llama3.1-and-gemma"
    assert licence_of("cyberagent/calm2-7b") is licence_of("") is None


def test_of_a_model_of_text_and_images_the_text_model_is_loaded_and_saved_as_one(small_base, tmp_path):
    base, ids = small_base("gemma-3-4b")["base"], torch.tensor([[2, 5, 6, 7]])
    whole = AutoModelForCausalLM.from_pretrained(base)
    assert whole.config.model_type == "gemma3"
    model = load_base(base, CPU, torch.float32)
    assert model.config.model_type == load_base_config(base).model_type == "gemma3_text"
    assert not [name for name, _ in model.named_modules() if "vision" in name]
    assert torch.equal(model(ids).logits, whole(input_ids=ids).logits)
    names = [name for name, _ in load_skeleton(base, torch.float32).named_parameters()]
    assert names == [name for name, _ in model.named_parameters()]
    model.save_pretrained(tmp_path / "saved")  # as a merged model and a run that trained all weights are
    for again in (
        load_base(str(tmp_path / "saved"), CPU, torch.float32),
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved"),
    ):
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_weights_that_are_not_in_the_files_are_an_error_and_not_random_ones(small_base, tmp_path):
    load_base(small_base("calm2")["base"], CPU, torch.float32).save_pretrained(tmp_path)
    config = LlamaConfig.from_pretrained(tmp_path)
    config.num_hidden_layers += 1
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"9 weights are not in its files, such as model\.layers\.2\."):
        load_base(str(tmp_path), CPU, torch.float32)


@pytest.mark.parametrize(
    ("family", "supported"),
    [("abeja", ["eager"]), ("genji", ["eager", "flash_attention_2"]), ("rinna", ["eager", "sdpa", "flex_attention"])],
)
def test_an_attention_that_a_model_has_not_is_refused_with_those_it_has(small_base, family, supported):
    base = small_base(family)["base"]
    config = AutoConfig.from_pretrained(base)
    for attention in ("eager", "sdpa", "flash_attention_2", "flex_attention"):
        if attention in supported or family == "rinna":
            check_attention(config, attention)
        else:
            with pytest.raises(UserError, match=rf"does not support {attention}, only {', '.join(supported)}$"):
                load_base(base, CPU, torch.float32, attention=attention)


def test_the_attention_asked_for_is_used(small_base):
    base = small_base("calm2")["base"]
    models = {name: load_base(base, CPU, torch.float32, attention=name) for name in ("auto", "eager", "sdpa")}
    used = {name: model.config._attn_implementation for name, model in models.items()}
    assert used == {"auto": "sdpa", "eager": "eager", "sdpa": "sdpa"}
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(models["eager"](ids).logits, models["sdpa"](ids).logits, rtol=1e-4, atol=1e-4)


def test_checkpointing_that_an_architecture_has_not_is_refused_before_the_run_begins(small_base, program, tmp_path):
    check_checkpointing(load_base(small_base("genji")["base"], CPU, torch.float32))
    words = [f"model.base={small_base('abeja')['base']}", "model.build=null", "lora.target_modules=null"]
    words += [f"run.directory={tmp_path / 'run'}", "data.train_rows=16", "training.activation_checkpointing=true"]
    result = program("train_sft", "configs/tiny.yaml", *words, "training.total_batch_size=8")
    assert result.returncode == 2
    assert "training.activation_checkpointing: GPTNeoXJapaneseForCausalLM does not support it" in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_attention_that_was_asked_for_is_not_replaced_by_packing(small_base, program, tmp_path):
    words = [f"model.base={small_base('calm2')['base']}", "model.build=null", "lora.target_modules=null"]
    words += [f"run.directory={tmp_path / 'run'}", "data.train_rows=16", "--dry-run"]
    assert "packed in bins" in program("train_sft", "configs/tiny.yaml", *words, "model.attention=sdpa").stdout
    result = program("train_sft", "configs/tiny.yaml", *words, "model.attention=eager")
    assert "not packed: packed rows have an attention of their own" in " ".join(result.stdout.split())
    result = program("train_sft", "configs/tiny.yaml", *words, "model.attention=eager", "training.pack=true")
    assert result.returncode == 2
    assert "training.pack: true, but packed rows have an attention of their own" in result.stderr
