"""Trackers, offline: validation losses by group and sample answers reach them, and their files stay in the run."""

import dataclasses
import importlib.util
import json
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_up import answers

from eval import tracked as tracked_scores
from eval.scoring.score import score
from eval.tracked import report_scores
from sft.config.library.packages import REPORTERS
from sft.run.directory import require_finished
from sft.training.trackers import BEGUN, Begun

ROOT = Path(__file__).parents[1]
TRACKERS = ("mlflow", "tensorboard", "trackio", "wandb")


def words(tiny_base, run, *more):
    changes = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", "data.train_rows=32"]
    changes += [f"data.path={ROOT / 'data/sample.jsonl'}", "data.validation_share=0.1"]
    changes += ["training.total_batch_size=16", "training.samples=1", "generation.max_new_tokens=4", *more]
    return [ROOT / "train_sft.py", ROOT / "configs/tiny.yaml", *changes]


@pytest.fixture(scope="module")
def tracked(tiny_base, tmp_path_factory, command):
    """A working directory with a run in it that told every tracker, and its home."""
    if missing := [name for name in TRACKERS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; pip install -r requirements/trackers.txt")
    place = tmp_path_factory.mktemp("tracked")
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    environment |= {"HF_DATASETS_CACHE": str(home / "datasets"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    told = f"training.report_to=[{', '.join(TRACKERS)}]"
    done = command(*words(tiny_base, "run", told), cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    del environment["WANDB_MODE"]  # what was kept offline stays so
    scored = command("-m", "eval", "run", "eval.rows_per_category=1", cwd=place, env=environment)
    assert scored.returncode == 0, scored.stderr
    assert "scores reached it" not in scored.stderr
    return place


@pytest.fixture
def means(tracked) -> dict[str, float]:
    """What the report says of the tuned model, by group."""
    results = json.loads((tracked / "run" / "eval" / "results.json").read_text(encoding="utf-8"))
    return {name: metrics["character_f1"]["mean"] for name, metrics in results["systems"]["tuned"]["groups"].items()}


def test_nothing_is_written_beside_the_run_and_no_link_leads_out_of_it(tracked):
    assert {path.name for path in tracked.iterdir()} == {"run", ".run.lock"}
    require_finished(tracked / "run")  # which infer.py does


def test_tensorboard_has_losses_by_group_answers_and_scores(tracked, means):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tracked / "run" / "trackers" / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"train/loss", "eval/open_loss", "eval/context_loss", "eval/open_rows"} <= {*tags["scalars"]}
    assert [tag for tag in tags["tensors"] if tag.startswith("samples/open ")]
    assert "scores by category/text_summary" in tags["tensors"]
    scores = {tag: found.Scalars(tag)[-1].value for tag in tags["scalars"] if tag.endswith("/tuned")}
    assert scores == pytest.approx({f"scores/{name}/tuned": mean for name, mean in means.items()}, rel=1e-6)


def test_mlflow_has_losses_by_group_answers_and_scores(tracked, means):
    (run,) = [path.parent for path in (tracked / "run" / "trackers" / "mlflow").glob("*/*/meta.yaml")]
    assert (run / "metrics" / "eval_open_loss").is_file()
    answers = json.loads(next((run / "artifacts" / "samples").glob("*.json")).read_text(encoding="utf-8"))
    assert {one["group"] for one in answers} == {"open", "context", "other"}
    last = (run / "metrics" / "scores" / "open" / "tuned").read_text().split()
    assert float(last[1]) == pytest.approx(means["open"])
    assert (run / "artifacts" / "scores by category.md").read_text(encoding="utf-8").startswith("| category | rows |")


def test_trackio_has_losses_by_group_answers_and_scores(tracked, means):
    (database,) = (tracked / "run" / "trackers" / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        logged = [json.loads(row[0]) for row in connection.execute("SELECT metrics FROM metrics")]
    assert any("eval/open_loss" in one for one in logged)
    tables = [one["samples"] for one in logged if "samples" in one]
    assert {row["group"] for row in tables[-1]["_value"]} == {"open", "context", "other"}
    (scores,) = [one for one in logged if "scores by category" in one]
    assert scores["scores/open/tuned"] == pytest.approx(means["open"])


def test_wandb_has_answers_and_scores_as_tables_of_one_run(tracked):
    tables = [*(tracked / "run" / "trackers" / "wandb").glob("offline-run-*/files/media/table/*.json")]
    assert len({path.parents[3].name.rpartition("-")[2] for path in tables}) == 1
    found = {path.name.partition("_")[0]: json.loads(path.read_text(encoding="utf-8")) for path in tables}
    assert found["scores by category"]["columns"][:2] == ["category", "rows"]
    content = found["samples"]
    assert content["columns"] == ["row", "group", "question", "reference", "answer", "finish_reason"]
    assert [row[1] for row in content["data"]] == ["open", "context", "other"]


@pytest.fixture
def results():
    return score([*answers("base", 1), *answers("tuned", 3)], resamples=20)


def begun(run, **records):
    """Note the trackers' records, as a training does."""
    (run / BEGUN).parent.mkdir(parents=True, exist_ok=True)
    (run / BEGUN).write_text(json.dumps(records), encoding="utf-8")


def test_a_category_is_text_in_a_table_that_is_read_as_markdown():
    given = [
        dataclasses.replace(one, example=dataclasses.replace(one.example, category="<b>a|b"))
        for one in [*answers("base", 1), *answers("tuned", 3)]
    ]
    table = tracked_scores._markdown(score(given, resamples=20))
    assert "| &lt;b>a\\|b | 32 |" in table


def test_mlflows_files_that_were_moved_get_the_numbers_and_nothing_is_made_where_they_were(
    tmp_path, monkeypatch, results, capsys
):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "run" / "trackers" / "mlflow"))
    with mlflow.start_run() as found:
        begun(tmp_path / "run", mlflow={"run_id": found.info.run_id})
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "moved" / "trackers" / "mlflow"))
    report_scores(tmp_path / "moved", results)
    assert "warning: mlflow: not all scores reached it (it has the numbers and no table" in capsys.readouterr().err
    assert [*(tmp_path / "moved").rglob("metrics/scores/open/tuned")]
    assert not (tmp_path / "run").exists()


def test_wandb_is_asked_as_the_training_asked_it_and_without_a_prompt(tmp_path, monkeypatch, results, capsys):
    asked = []

    def login(prompt=True):
        asked.append(prompt)
        return False

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(login=login, init=None))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "")  # so that what is set is unset again
    del os.environ["WANDB_MODE"]
    begun(tmp_path, wandb={"id": "a", "project": "b", "entity": None, "mode": "online"})
    report_scores(tmp_path, results)
    assert "wandb: not all scores reached it (nobody is logged in" in capsys.readouterr().err
    assert asked == [False]
    assert os.environ["WANDB_MODE"] == "online"


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_that_keeps_no_record_is_not_noted(tmp_path, monkeypatch):
    import wandb

    run = SimpleNamespace(id="dummy", project="dummy", entity="", disabled=True, offline=False)
    monkeypatch.setattr(wandb, "run", run)
    Begun(["wandb"], tmp_path).on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
    assert json.loads((tmp_path / BEGUN).read_text()) == {}


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
    lines = (ROOT / "requirements/trackers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==")[0] for line in lines if not line.startswith("#")]
    assert sorted(pins) == sorted(REPORTERS[name] for name in TRACKERS)
