"""Every model family, small and random: trained, reloaded, answered, scored, merged, as the real one.

`make test` runs most families with one quantisation, `make test-models` all with all, and the real gemma-3-270m where
it is.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from eval.predictions import read_predictions
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.generation.generate import generate
from sft.generation.streamer import decode
from sft.model.adapter import check_adapter
from sft.model.load import load_base, load_tokenizer
from sft.model.lora import describe_trained, load_adapter
from sft.prompt.encode import encode_answer, encode_prompt
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.training import train as training

ROOT = Path(__file__).parents[1]
REAL_GEMMA = ROOT / "models" / "gemma-3-270m"
CPU = torch.device("cpu")
QUANTISATIONS = {
    "none": [],
    "int8": ["quantization.load_in_8bit=true"],
    "nf4": ["quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=nf4"],
}
IN_MAKE_TEST = {
    "open-calm": "int8",
    "rinna": "nf4",
    "genji": "int8",
    "llama-2": "nf4",
    "llm-jp": "int8",
    "gemma-3": "nf4",
    "qwen2.5": "none",
}
ELSEWHERE = ["abeja", "calm2", "gemma-3-4b", "llama-3.1", "sarashina", "llm-jp-4", "qwen3", "gemma-3-270m"]
"""Families that `make test` leaves to tests of their tokenizers and of packed rows."""
TARGETS = {
    "open-calm": {"query_key_value"},
    "rinna": {"query_key_value"},
    "abeja": {"query_key_value"},
    "gemma-3": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "gemma-3-4b": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "gemma-3-270m": {"q_proj", "k_proj", "v_proj", "o_proj"},
}
BOS = {"llama-2", "llm-jp", "gemma-3", "llama-3.1", "llm-jp-4", "gemma-3-4b", "gemma-3-270m"}

TEXT = "一行目は東京です。\n\n二行目:「鱻」と😀 </s><|endoftext|> abc"
ROW = {"index": "1", "instruction": "改行は?\n二つ", "input": "</s>と<s>。", "output": TEXT, "category": "closed_qa"}


def model_section(family, small_base):
    """What section `model` of a configuration says: a small random model, or the real one where it is."""
    if family != "gemma-3-270m":
        return small_base(family)
    if not REAL_GEMMA.is_dir():
        pytest.skip(f"the real gemma-3-270m is not at {REAL_GEMMA}; make demo builds it")
    return {"base": str(REAL_GEMMA)}


def cycle_cases():
    for family, quick in [*IN_MAKE_TEST.items(), *((family, None) for family in ELSEWHERE)]:
        for quantisation in QUANTISATIONS:
            marks = [] if quantisation == quick else [pytest.mark.models]
            yield pytest.param(family, quantisation, marks=marks, id=f"{family}-{quantisation}")


@pytest.mark.parametrize(("family", "quantisation"), cycle_cases())
def test_a_family_is_trained_reloaded_answered_scored_and_merged(
    family, quantisation, small_base, program, tmp_path, monkeypatch
):
    section, run = model_section(family, small_base), tmp_path / "run"
    check_supervision(load_tokenizer(section.get("tokenizer", section["base"])), family in BOS)
    trained = train(program, monkeypatch, section, run, QUANTISATIONS[quantisation])
    answerer = load_answerer(open_run(run))
    saved = load_file(run / "adapter" / "adapter_model.safetensors")
    adapted = {name.split(".")[-3] for name in saved if "lora_B" in name}
    assert adapted == TARGETS.get(family, {"q_proj", "v_proj"})
    ids = probe_ids(answerer)
    torch.testing.assert_close(logits(answerer.model, ids), trained, rtol=1e-4, atol=1e-4)
    with answerer.as_system("base"):
        assert (logits(answerer.model, ids) - trained).abs().max() > 1e-3
    check_saved_tokenizer(answerer, run / "adapter", family)
    check_score(program, run)
    check_unquantised(section["base"], answerer, run / "adapter")


def train(program, monkeypatch, section, run, words):
    """Train by the command on a few rows; returns the logits of the model in training at its end."""
    seen = []
    finish = training.finish

    def spy(config, prepared, trainer, *others):
        ids = encode_prompt(prepared.tokenizer, ALPACA_JA.render("首都は?", "日本の首都は東京です。"))
        seen.append(logits(trainer.accelerator.unwrap_model(trainer.model).eval(), ids))
        finish(config, prepared, trainer, *others)

    monkeypatch.setattr(training, "finish", spy)
    settings = {
        "model.build": "null", "run.directory": run, "data.train_rows": 24, "data.test_share": 0.3,
        "lora.target_modules": "null", "lora.lora_dropout": 0, "training.max_length": 1024,
        "training.train_on_inputs": "false", "training.total_batch_size": 8,
        "training.per_device_train_batch_size": 4, "training.learning_rate": 0.005,
        "training.per_device_eval_batch_size": 4, "generation.max_new_tokens": 8, "eval.resamples": 50,
    } | {f"model.{key}": value for key, value in section.items()}  # fmt: skip
    result = program("train_sft", "configs/tiny.yaml", *(f"{key}={value}" for key, value in settings.items()), *words)
    assert result.returncode == 0, result.stderr
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["grad_norm"] > 0 for record in losses if "loss" in record] == [True] * 3
    return seen[0]


def check_supervision(tokenizer, bos_in_front):
    """Exactly the answer and one end-of-text token are supervised, and the prompt is the one answered later."""
    row = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), 2048, train_on_inputs=False).encode_row(ROW)
    prompt = encode_prompt(tokenizer, ALPACA_JA.render(ROW["instruction"], ROW["input"]))
    answer = encode_answer(tokenizer, TEXT)
    assert row.input_ids == [*prompt, *answer, tokenizer.eos_token_id]
    assert row.labels == [IGNORE_INDEX] * len(prompt) + [*answer, tokenizer.eos_token_id]
    bos = [tokenizer.bos_token_id] * bos_in_front
    assert [token for token in row.input_ids if token in tokenizer.all_special_ids] == [*bos, tokenizer.eos_token_id]
    assert row.input_ids[: len(bos)] == bos
    assert tokenizer.decode(answer, clean_up_tokenization_spaces=False) == TEXT
    assert not tokenizer.convert_ids_to_tokens(answer)[0].startswith("▁")


def probe_ids(answerer: Answerer) -> list[int]:
    return answerer.prompt("首都は?", "日本の首都は東京です。").ids


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def check_saved_tokenizer(answerer: Answerer, adapter: Path, family: str):
    """What lies beside the adapter encodes and decodes as the tokenizer in training, for anybody who loads it."""
    plain = AutoTokenizer.from_pretrained(adapter)
    for text in (TEXT, "東京です。", ALPACA_JA.render("首都は?", "東京。")):
        assert encode_prompt(plain, text) == encode_prompt(answerer.tokenizer, text)
        assert encode_answer(plain, text) == encode_answer(answerer.tokenizer, text)
        if family != "abeja":  # transformers' own class cannot decode characters of several bytes
            assert decode(plain, encode_answer(plain, text)) == text.strip()


def check_score(program, run):
    """The evaluation answers and scores with the base and the tuned model."""
    result = program("eval.__main__", run, "eval.rows_per_category=1", "generation.max_new_tokens=3")
    assert result.returncode == 0, result.stderr
    predictions = list(read_predictions(run / "eval" / "predictions.jsonl"))
    assert [p.system for p in predictions] == ["base"] * 8 + ["tuned"] * 8
    assert all(p.reference_nll > 0 for p in predictions)
    context = [p.reference_nll for p in predictions if p.example.category == "closed_qa"]
    assert context[0] != context[1]


def check_unquantised(base: str, answerer: Answerer, adapter: Path):
    """In fp32 a batch answers as one at a time does, and a merged model as one with its adapter."""
    model = load_adapter(load_base(base, CPU, torch.float32), adapter).eval()
    prompts = [answerer.prompt(text).ids for text in ("首都は?", "春\nとは何ですか。詳しく教えてください。", "山")]
    settings = {"max_new_tokens": 8, "repetition_penalty": 1.5}
    together = generate(model, answerer.tokenizer, prompts, settings)
    assert [generate(model, answerer.tokenizer, [prompt], settings)[0] for prompt in prompts] == together
    assert len({answer.text for answer in together}) > 1
    expected = logits(model, prompts[1])
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, prompts[1]), expected, rtol=1e-4, atol=1e-4)
    assert generate(merged, answerer.tokenizer, prompts, settings) == together


VARIANTS = {
    "rsLoRA": (["lora.use_rslora=true"], {"query_key_value"}),
    "DoRA": (["lora.use_dora=true"], {"query_key_value"}),
    "DoRA in 4-bit": (["lora.use_dora=true", *QUANTISATIONS["nf4"]], {"query_key_value"}),
    "all linear": (["lora.target_modules=all-linear"], {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pefts_variants_are_trained_saved_and_answered_with(variant, small_base, program, tmp_path, monkeypatch):
    (words, targets), run = VARIANTS[variant], tmp_path / "run"
    trained = train(program, monkeypatch, small_base("rinna"), run, words)
    answerer = load_answerer(open_run(run))
    ids = probe_ids(answerer)
    torch.testing.assert_close(logits(answerer.model, ids), trained, rtol=1e-4, atol=1e-4)
    assert check_adapter(run / "adapter") == 2 * len(targets)
    saved = load_file(run / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in saved if "lora_B" in name} == targets
    magnitudes = [tensor for name, tensor in saved.items() if "lora_magnitude_vector" in name]
    assert len(magnitudes) == (2 if "DoRA" in variant else 0)
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == ("rsLoRA" in variant, "DoRA" in variant)
    if "4-bit" in variant:  # weights in 4 bits are not merged into
        assert f"LoRA on {2 * len(targets)} modules" in describe_trained(answerer.model)
    else:
        apart = load_adapter(load_base(small_base("rinna")["base"], CPU, torch.float32), run / "adapter").eval()
        assert f"LoRA on {2 * len(targets)} modules" in describe_trained(apart)
        settings = {"max_new_tokens": 4}
        together = generate(answerer.model, answerer.tokenizer, [ids], settings)
        assert generate(apart, answerer.tokenizer, [ids], settings) == together
