"""Activations are kept where memory allows it and computed again where not; what the configuration says wins."""

import json

import pytest
import torch

from sft.config.load import load_config
from sft.model.load import load_skeleton
from sft.model.lora import add_lora
from sft.plan import activations as checkpointing
from sft.plan.memory import COMFORTABLE, Layout, estimate


@pytest.fixture
def words(tiny_base, tmp_path):
    return [f"model.base={tiny_base}", "model.build=null", f"run.directory={tmp_path / 'run'}", "data.train_rows=16"]


def choose(words, *more, packed=True):
    config = load_config("configs/tiny.yaml", [*words, *more])
    return checkpointing.choose(config, packed, 300, torch.device("cpu"), torch.float32)


@pytest.fixture
def need(words, tiny_base):
    """What training the tiny model takes with its activations kept, in bytes."""
    config = load_config("configs/tiny.yaml", words)
    model = load_skeleton(str(tiny_base), torch.float32)
    add_lora(model, config.lora)
    return estimate(model, checkpointing.micro_batch(config, True, 300, torch.float32, "documents")).total


def test_the_estimate_and_the_memory_decide_and_only_then_is_something_said(words, need, monkeypatch, capsys):
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: need / COMFORTABLE * 1.001)
    assert choose(words) is False
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: need / COMFORTABLE * 0.999)
    assert choose(words) is True
    assert "activations are computed again in the backward pass" in capsys.readouterr().out


@pytest.mark.parametrize("setting", [True, False])
def test_what_is_written_in_the_configuration_wins(words, monkeypatch, setting):
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: 0 if not setting else 1e15)
    assert choose(words, f"training.activation_checkpointing={str(setting).lower()}") is setting


def test_an_architecture_that_cannot_compute_them_again_keeps_them(tmp_path, words, monkeypatch):
    from transformers import GPTNeoXJapaneseConfig

    GPTNeoXJapaneseConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64).save_pretrained(
        tmp_path
    )
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: 0)
    assert choose(words, f"model.base={tmp_path}", packed=False) is False


def test_a_micro_batch_is_a_bin_or_the_longest_row_in_each_place(words):
    config = load_config("configs/tiny.yaml", [*words, "training.per_device_train_batch_size=3"])
    length = config.training["max_length"]
    assert checkpointing.micro_batch(config, True, 300, torch.bfloat16) == Layout(3, length, False, None, "dense")
    assert checkpointing.micro_batch(config, False, 300, torch.bfloat16) == Layout(3, 300, False, None, "padded")


def test_a_run_keeps_what_was_chosen_when_it_is_resumed_on_another_machine(program, words, tmp_path, monkeypatch):
    more = ["training.total_batch_size=8", "training.save_steps=1", "training.num_train_epochs=2"]
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: 1)
    result = program("train_sft", "configs/tiny.yaml", *words, *more)
    assert result.returncode == 0, result.stderr
    assert "activations are computed again" in result.stdout

    def chosen():
        return json.loads((tmp_path / "run" / "manifest.json").read_text())["activation_checkpointing"]

    assert chosen() is True
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    monkeypatch.setattr(checkpointing, "memory_bytes", lambda device: 1e15)
    result = program("train_sft", "configs/tiny.yaml", *words, *more, "--resume")
    assert result.returncode == 0, result.stderr
    assert chosen() is True
