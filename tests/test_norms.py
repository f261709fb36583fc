"""Compiled norms compute what the model's own do; which of the two a run has is kept."""

import copy
import functools
import json
import shutil

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from test_packing import CONFIGS
from transformers import AutoModelForCausalLM

from sft.model.norms import compile_norms
from sft.training import train

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="compiling norms needs a C++ compiler (g++)")


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A machine whose compiler does not work, and that has compiled nothing yet."""
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.compiler.reset()
    with torch._inductor.config.patch({"cpp.cxx": (None, str(broken))}):
        yield
    torch.compiler.reset()


def build(architecture, dtype, checkpointing=False):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[architecture]), dtype=dtype).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def norms_of(model):
    """Llama has two a layer and one at the end, Gemma six."""
    found = [module for module in model.modules() if type(module).__name__ in ("LlamaRMSNorm", "Gemma3RMSNorm")]
    assert len(found) in (2 * 3 + 1, 6 * 3 + 1)
    return found


def learned(model, length=40):
    """Loss of a row, and its gradient by every weight, in fp32."""
    model.zero_grad()
    ids = torch.randint(2, 300, (1, length), generator=torch.Generator().manual_seed(length))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten().float() for weight in model.parameters()])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_loss_and_gradient_are_those_of_the_models_own_norms(architecture, checkpointing):
    plain, compiled = (build(architecture, torch.float32, checkpointing) for _ in range(2))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    assert compile_norms(compiled) is True
    for length in (40, 40, 57):
        (loss, gradient), (expected, by) = learned(compiled, length), learned(plain, length)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert (gradient - by).norm() <= 1e-5 * by.norm()
    assert all(isinstance(norm.forward, functools.partial) for norm in norms_of(compiled))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1  # tried, and then used for other shapes


def test_in_16_bits_they_are_no_further_from_fp32():
    model = build("llama", torch.bfloat16)
    norm = norms_of(model)[0]
    torch.nn.init.normal_(norm.weight, 1.0)
    states = torch.randn(4, 128, len(norm.weight), generator=torch.Generator().manual_seed(1)).bfloat16()

    def passed(norm, dtype):
        given = states.to(dtype, copy=True).requires_grad_()
        result = norm(given)
        result.backward(states.roll(1, -1).to(dtype))
        return torch.stack([result.double(), given.grad.double()])

    own = passed(norm, torch.bfloat16)
    assert compile_norms(model) is True
    compiled = passed(norm, torch.bfloat16)
    exact = passed(copy.deepcopy(norm).float(), torch.float32)
    assert (compiled - exact).norm() <= 1.001 * (own - exact).norm()


def test_a_norm_without_weights_is_left_alone():
    assert compile_norms(torch.nn.Sequential(torch.nn.RMSNorm(8, elementwise_affine=False))) is False


def test_where_no_gradient_follows_nothing_is_compiled():
    model = build("llama", torch.float32)
    assert compile_norms(model) is True
    with torch._dynamo.config.patch(error_on_recompile=True), torch.no_grad():
        assert model(input_ids=torch.arange(2, 40)[None]).logits.isfinite().all()


def test_a_model_without_such_norms_is_left_alone():
    assert compile_norms(build("gpt_neox", torch.float32)) is False


def test_without_a_compiler_the_norms_are_the_models_own_and_that_is_said(no_compiler, capsys):
    model = build("llama", torch.float32)
    assert compile_norms(model) is False
    assert not any("forward" in vars(module) for module in model.modules())
    message = capsys.readouterr().err
    assert "norms are not compiled" in message
    assert "g++" in message
    assert message.count("\n") == 1


def test_a_long_run_has_them_and_goes_on_with_them_or_not_at_all(small_base, program, tmp_path, monkeypatch, request):
    words = [f"model.base={small_base('gemma-3')['base']}", "model.build=null", "lora.target_modules=null"]
    words += [f"run.directory={tmp_path / 'run'}", "data.train_rows=16", "training.eval_strategy=no"]

    def begun_so():
        return json.loads((tmp_path / "run" / "manifest.json").read_text())["compiled_norms"]

    assert program("train_sft", "configs/tiny.yaml", *words).returncode == 0
    assert begun_so() is False  # a short one
    monkeypatch.setattr(train, "WORTH", 1)
    assert program("train_sft", "configs/tiny.yaml", *words, "--force").returncode == 0
    assert begun_so() is True
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    monkeypatch.setattr(train, "WORTH", 10**12)
    assert program("train_sft", "configs/tiny.yaml", *words, "--resume").returncode == 0
    assert begun_so() is True
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    before = manifest.read_text()
    request.getfixturevalue("no_compiler")
    result = program("train_sft", "configs/tiny.yaml", *words, "--resume")
    assert result.returncode == 2
    assert "begun with compiled norms" in result.stderr
    assert manifest.read_text() == before
