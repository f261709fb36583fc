"""Trackers, offline: validation losses by group and sample answers reach them, and their files stay in the run."""

import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest

from sft.config.library.packages import REPORTERS
from sft.run.directory import require_finished

ROOT = Path(__file__).parents[1]
TRACKERS = ("tensorboard", "trackio", "wandb")


def words(tiny_base, run, *more):
    changes = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", "data.train_rows=32"]
    changes += [f"data.path={ROOT / 'data/sample.jsonl'}", "data.validation_share=0.1"]
    changes += ["training.total_batch_size=16", "training.samples=1", "generation.max_new_tokens=4", *more]
    return [ROOT / "train_sft.py", ROOT / "configs/tiny.yaml", *changes]


@pytest.fixture(scope="module")
def tracked(tiny_base, tmp_path_factory, command):
    """A working directory with a run in it that told every tracker, and its home."""
    if missing := [name for name in TRACKERS if importlib.util.find_spec(name) is None]:
        pytest.skip(f'not installed: {", ".join(missing)}; pip install ".[trackers]"')
    place = tmp_path_factory.mktemp("tracked")
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    environment |= {"HF_DATASETS_CACHE": str(home / "datasets"), "OMP_NUM_THREADS": "1"}
    told = f"training.report_to=[{', '.join(TRACKERS)}]"
    done = command(*words(tiny_base, "run", told), cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return place


def test_nothing_is_written_beside_the_run_and_no_link_leads_out_of_it(tracked):
    assert {path.name for path in tracked.iterdir()} == {"run", ".run.lock"}
    require_finished(tracked / "run")  # which infer.py does


def test_tensorboard_has_losses_by_group_and_answers(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tracked / "run" / "trackers" / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"train/loss", "eval/open_loss", "eval/context_loss", "eval/open_rows"} <= {*tags["scalars"]}
    assert [tag for tag in tags["tensors"] if tag.startswith("samples/open ")]


def test_trackio_has_losses_by_group_and_answers(tracked):
    (database,) = (tracked / "run" / "trackers" / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        logged = [json.loads(row[0]) for row in connection.execute("SELECT metrics FROM metrics")]
    assert any("eval/open_loss" in one for one in logged)
    tables = [one["samples"] for one in logged if "samples" in one]
    assert {row["group"] for row in tables[-1]["_value"]} == {"open", "context", "other"}


def test_wandb_has_answers_as_a_table(tracked):
    (table,) = (tracked / "run" / "trackers" / "wandb").glob("offline-run-*/files/media/table/*.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == ["row", "group", "question", "reference", "answer", "finish_reason"]
    assert [row[1] for row in content["data"]] == ["open", "context", "other"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_without_a_login_is_one_line_before_anything_is_touched(tiny_base, tmp_path, program, monkeypatch):
    import wandb

    def login(*_, **__):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    script, config, *changes = words(tiny_base, tmp_path / "run", "training.report_to=wandb")
    done = program(script.stem, config, *changes)
    assert done.returncode == 2
    assert "training.report_to: wandb: No API key configured" in done.stderr
    assert "WANDB_MODE=offline" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_extra_holds_what_the_trackers_need():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert sorted(one.split("==")[0] for one in extras["trackers"]) == sorted(REPORTERS[name] for name in TRACKERS)
