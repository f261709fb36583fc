"""`model.adapter`: a training that goes on from another run's adapter."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from sft.run.manifest import read_manifest
from sft.training.trainer import RunTrainer

ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture
def train(program, trained_run, tiny_base, tmp_path):
    """A second stage of three steps, on other rows."""

    def run(*more):
        return program(
            "train_sft", "configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null",
            f"model.adapter={trained_run}", "data.train_rows=24", "training.total_batch_size=8",
            "training.eval_strategy=no", f"run.directory={tmp_path / 'second'}", *more,
        )  # fmt: skip

    return run


def test_a_second_stage_begins_with_the_parents_adapter_and_resumes(train, program, trained_run, tmp_path, monkeypatch):
    run = tmp_path / "second"
    assert train("training.learning_rate=1e-12").returncode == 0
    parent, child = (load_file(path / ADAPTER) for path in (trained_run, run))
    assert parent.keys() == child.keys()
    assert all((parent[name] - child[name]).abs().max() < 1e-6 for name in parent)
    manifest, theirs = read_manifest(run), read_manifest(trained_run)
    assert manifest.parent.model_dump() == {
        "run": trained_run.name, "started": theirs.started, "learned": theirs.learned_sha256,
    }  # fmt: skip
    assert train("training.learning_rate=1e-2", "--force").returncode == 0
    whole = (run / ADAPTER).read_bytes()
    does, words = RunTrainer.training_step, ("training.learning_rate=1e-2", "training.save_steps=1")

    def killed(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return does(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "training_step", killed)
        assert train(*words, "--force").returncode != 0
    assert train(*words, "--resume").returncode == 0
    assert (run / ADAPTER).read_bytes() == whole
    asked = program("infer", run, "--instruction", "高さは？", "generation.max_new_tokens=4")
    assert asked.returncode == 0, asked.stderr


def test_what_is_not_the_parents_is_refused_in_a_line(train, trained_run, tmp_path):
    def refused(*words):
        done = train(*words)
        assert done.returncode == 2
        assert not (tmp_path / "second").exists()
        return done.stderr

    assert f"lora.r: is 4, and the adapter of {trained_run} has 8; take it out, or set lora.r=8" in refused("lora.r=4")
    assert "null trains all weights" in refused("lora=null")
    assert "another prompt template; take its own" in refused("prompt.template=alpaca-en")
    assert "is not the directory of a run" in refused(f"model.adapter={tmp_path}")
    assert "is where this training would write" in refused(f"run.directory={trained_run}", "--force")
    damaged = tmp_path / "damaged"
    shutil.copytree(trained_run, damaged)
    (damaged / ADAPTER).write_bytes(b"")
    assert "is not what the training wrote" in refused(f"model.adapter={damaged}")


def test_another_base_is_refused(train, trained_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["base_sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert "was trained with another base model" in train(f"model.adapter={other}").stderr
