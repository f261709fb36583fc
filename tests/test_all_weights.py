"""`lora: null`: all weights are trained, saved, resumed, and answered with beside the base model."""

import pytest
import torch
from forked import killed_after_step, started
from transformers import AutoModelForCausalLM


@pytest.fixture
def words(tiny_base, tmp_path):
    changed = ["lora=null", "data.train_rows=32", "training.total_batch_size=8", "training.save_steps=2"]
    places = [f"model.base={tiny_base}", "model.build=null", f"run.directory={tmp_path / 'run'}"]
    return ["configs/tiny.yaml", *places, *changed, "training.eval_strategy=no"]


def test_the_tuned_model_and_the_base_both_answer(program, words, tiny_base, tmp_path):
    run = tmp_path / "run"
    trained = program("train_sft", *words)
    assert trained.returncode == 0, trained.stderr
    assert "no adapter: all 1,445,376 weights are trained" in trained.stdout
    tuned, base = (AutoModelForCausalLM.from_pretrained(place) for place in (run / "model", tiny_base))
    moved = {name for name, weight in tuned.named_parameters() if not weight.equal(base.get_parameter(name))}
    assert moved == {name for name, _ in base.named_parameters()}
    prompt = torch.tensor([[5, 6, 7, 8]])

    from sft.generation.answerer import load_answerer, open_run

    answerer = load_answerer(open_run(run))
    for system, expected in (("tuned", tuned), ("base", base)):
        with answerer.as_system(system):
            torch.testing.assert_close(answerer.model(prompt).logits, expected(prompt).logits)
    assert program("eval.__main__", run, "eval.rows_per_category=1", "eval.resamples=10").returncode == 0


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(program, words, tmp_path):
    run = tmp_path / "run"
    assert started("train_sft", *words, first=killed_after_step(3)).wait() == 9
    assert program("train_sft", *words, "--resume").returncode == 0
    resumed = (run / "model" / "model.safetensors").read_bytes()
    assert program("train_sft", *words, "--force").returncode == 0
    assert (run / "model" / "model.safetensors").read_bytes() == resumed


def test_quantised_weights_cannot_all_be_trained(program, words):
    refused = program("train_sft", *words, "quantization.load_in_8bit=true")
    assert refused.returncode == 2
    assert "lora: null trains all weights, which quantised ones cannot be" in refused.stderr
