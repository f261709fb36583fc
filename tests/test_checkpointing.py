"""Activations are kept where memory allows it and computed again where not; what the configuration says wins."""

import json

import pytest
import torch
from trl import SFTConfig

from sft.config.load import load_config
from sft.model.load import load_skeleton
from sft.model.lora import add_lora
from sft.plan import activations as checkpointing
from sft.plan.memory import COMFORTABLE, Layout, estimate
from sft.training.train import take


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
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: need / COMFORTABLE * 1.001)
    assert choose(words).checkpointing is False
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: need / COMFORTABLE * 0.999)
    assert choose(words).checkpointing is True
    assert "activations computed again in the backward pass" in capsys.readouterr().out


@pytest.mark.parametrize("setting", [True, False])
def test_what_is_written_in_the_configuration_wins(words, monkeypatch, setting):
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 0 if not setting else 1e15)
    assert choose(words, f"training.activation_checkpointing={str(setting).lower()}").checkpointing is setting


def test_an_architecture_that_cannot_compute_them_again_keeps_them(tmp_path, words, monkeypatch):
    from transformers import GPTNeoXJapaneseConfig

    GPTNeoXJapaneseConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64).save_pretrained(
        tmp_path
    )
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 0)
    assert choose(words, f"model.base={tmp_path}", packed=False).checkpointing is False


LARGE = ("training.per_device_train_batch_size=16", "training.max_length=1024", "training.total_batch_size=16")


@pytest.fixture
def halves(words, tiny_base):
    """What training the tiny model takes in bins of 16,384 tokens, and of half as many again and again, in bytes."""
    config = load_config("configs/tiny.yaml", [*words, *LARGE])
    model = load_skeleton(str(tiny_base), torch.float32)
    add_lora(model, config.lora)
    layout = checkpointing.micro_batch(config, True, 300, torch.float32, "documents")
    return {rows: estimate(model, layout._replace(rows=rows)).total for rows in (16, 8, 4)}


def test_bins_become_smaller_before_activations_are_computed_again(words, halves, monkeypatch, capsys):
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: halves[8] / COMFORTABLE * 1.001)
    assert choose(words, *LARGE) == (False, 8)
    assert "micro-batches of at most 8 in place of 16 rows: as configured, training would" in capsys.readouterr().out
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: halves[16] * 1.001)
    assert choose(words, *LARGE) == (False, 8)
    assert " GB are free, a tenth of which should stay free\n" in capsys.readouterr().out
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: halves[4] / COMFORTABLE * 0.999)
    assert choose(words, *LARGE) == (True, 4), "without it, bins of 2,048 tokens would do, at a higher price"


def test_what_nothing_makes_fit_is_said_before_it_begins(words, monkeypatch, capsys):
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 10**6)
    assert choose(words, *LARGE) == (True, 1)
    assert "and 0.0 GB are free: end other programs" in capsys.readouterr().err


def test_the_process_with_the_least_memory_decides_for_all(words, halves, monkeypatch, capsys):
    least = halves[8] / COMFORTABLE * 1.001
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 1e15)
    monkeypatch.setattr(checkpointing, "WORLD_SIZE", 2)
    monkeypatch.setattr(checkpointing, "gather_object", lambda own: [*own, least])
    assert choose(words, *LARGE) == (False, 8)
    assert f"and {least / 1e9:.1f} GB are free" in capsys.readouterr().out


def test_what_needs_less_than_what_was_tried_is_advised(words, monkeypatch):
    """Activations are computed again already, and a micro-batch has a row: neither helps any more."""
    config = load_config("configs/tiny.yaml", [*words, *LARGE])
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 1e15)
    tried = [checkpointing.Chosen(False, 16), checkpointing.Chosen(True, 1)]
    first, last = (checkpointing.less_memory(config, True, 300, torch.device("cpu"), one) for one in tried)
    assert "training.per_device_train_batch_size=1 (" in first
    assert "activation_checkpointing=true" in first
    assert "per_device_train_batch_size" not in last
    assert "activation_checkpointing" not in last


def test_what_was_chosen_has_both_names_that_the_libraries_read(tmp_path):
    arguments = SFTConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, activation_checkpointing=False)
    take(arguments, *checkpointing.Chosen(True, 3))
    assert (arguments.activation_checkpointing, arguments.gradient_checkpointing) == (True, True)
    assert arguments.train_batch_size == 3


def test_processes_on_one_machine_share_what_is_free(monkeypatch):
    monkeypatch.setattr(checkpointing, "available_bytes", lambda: 24 * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for processes, machine, card in ((1, 24, 20), (2, 12, 20), (4, 6, 10)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert checkpointing.free_bytes(torch.device("cpu")) == machine * 10**9
        assert checkpointing.free_bytes(torch.device("cuda", 0)) == card * 10**9


def test_a_micro_batch_is_a_bin_or_the_longest_row_in_each_place(words):
    config = load_config("configs/tiny.yaml", [*words, "training.per_device_train_batch_size=3"])
    length = config.training["max_length"]
    assert checkpointing.micro_batch(config, True, 300, torch.bfloat16) == Layout(3, length, False, None, "dense")
    assert checkpointing.micro_batch(config, False, 300, torch.bfloat16) == Layout(3, 300, False, None, "padded")


def test_a_run_keeps_what_was_chosen_when_it_is_resumed_on_another_machine(program, words, tmp_path, monkeypatch):
    more = ["training.total_batch_size=8", "training.save_steps=1", "training.num_train_epochs=2"]
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 1)
    result = program("train_sft", "configs/tiny.yaml", *words, *more)
    assert result.returncode == 0, result.stderr
    assert "activations computed again" in result.stdout

    def chosen():
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        return manifest["activation_checkpointing"], manifest["micro_batch_rows"]

    assert chosen() == (True, 1)
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 1e15)
    result = program("train_sft", "configs/tiny.yaml", *words, *more, "--resume")
    assert result.returncode == 0, result.stderr
    assert chosen() == (True, 1)
