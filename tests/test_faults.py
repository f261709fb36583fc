"""Whatever ends a training, at whatever moment: it goes on to the same adapter, or says in a line why it cannot."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import torch
from forked import started

import sft.training.stopping
import sft.training.trainer
from sft.run import checkpoints
from sft.system.errors import UserError
from sft.training import train as training
from sft.training.log import warn_of_loss
from sft.training.stopping import Signals
from sft.training.trainer import RunTrainer

ROOT = Path(__file__).parents[1]
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def words(tiny_base):
    """A training of 12 steps of several micro-batches with dropout, in two epochs, with a checkpoint every 3."""
    return [
        "configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", "lora.lora_dropout=0.1",
        "data.train_rows=44", "training.total_batch_size=8", "training.num_train_epochs=2",
        "training.per_device_train_batch_size=1", "training.save_steps=3", "training.learning_rate=1e-2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """The adapter of the training that nothing interrupts, in a process of its own."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = started("train_sft", *words, f"run.directory={run}")
    assert done.wait() == 0, done.output()
    return (run / ADAPTER).read_bytes()


@pytest.fixture
def train(program, words, tmp_path):
    def run(*more):
        return program("train_sft", *words, f"run.directory={tmp_path / 'run'}", *more)

    return run


def assert_goes_on(train, whole, run):
    done = train("--resume")
    assert done.returncode == 0, done.stderr
    assert (run / ADAPTER).read_bytes() == whole
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, 13))
    return done


class Killed(BaseException):
    """Nothing catches it, so that files stay as they are at this moment."""


def killed(*_, **__):
    raise Killed


MOMENTS = {
    "a step": (RunTrainer, "_get_grad_norm", 7),
    "saving the optimizer": (RunTrainer, "_save_optimizer_and_scheduler", 2),
    "the hashes": (checkpoints, "write_whole", 2),
    "the new name": (Path, "rename", 3),
    "removing old ones": (checkpoints, "remove_old", 3),
    "the end": (training, "finish", 1),
}
"""What is being done, where in the code, and the how manieth time it is killed."""


@pytest.fixture
def kill(train, monkeypatch):
    """Train, and be killed at a moment."""

    def run(moment):
        owner, name, count = MOMENTS[moment]
        calls = iter(range(1, 1000))
        does = getattr(owner, name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *a, **k: killed() if next(calls) == count else does(*a, **k))
            with pytest.raises(Killed):
                train()

    return run


QUICK = ("saving the optimizer", "the end", "saving", "before the first step")
"""The moments of `make test`, here and below; the others are in `make test-faults`."""


def moments(of):
    """Their names, of which those that are not quick are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in of]


@pytest.mark.parametrize("moment", moments(MOMENTS))
def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_adapter(train, kill, whole, tmp_path, moment):
    kill(moment)
    assert_goes_on(train, whole, tmp_path / "run")


def test_a_run_that_is_killed_while_its_adapter_is_saved_has_none_and_goes_on(train, whole, tmp_path, monkeypatch):
    from sft.prompt.template import PromptTemplate

    with monkeypatch.context() as patch:
        patch.setattr(PromptTemplate, "save", killed)
        with pytest.raises(Killed):
            train()
    assert not (tmp_path / "run" / "adapter").exists()
    assert_goes_on(train, whole, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_drops_the_step_at_work_saves_the_last_whole_one_and_ends_as_signals_do(
    train, whole, tmp_path, monkeypatch, number
):
    does = RunTrainer.compute_loss
    step_of_call = []

    def compute_loss(self, *args, **kwargs):
        step_of_call.append(self.state.global_step)
        if self.state.global_step == 4 and step_of_call.count(4) == 2:  # the second micro-batch of step 5
            signal.raise_signal(number)
        return does(self, *args, **kwargs)

    ended = []
    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "compute_loss", compute_loss)
        patch.setattr("sft.training.stopping.os.kill", lambda pid, n: ended.append((pid, n)) or sys.exit(128 + n))
        stopped = train()
    assert ended == [(os.getpid(), number)]
    assert stopped.returncode == 128 + number
    assert "stopped after step 4 of 12; --resume goes on from there" in stopped.stderr
    assert step_of_call.count(4) == 2  # nothing more of the step was done
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert checkpoints.newest_whole(tmp_path / "run" / "checkpoints").name == "checkpoint-4"
    assert_goes_on(train, whole, tmp_path / "run")


@pytest.mark.slow
def test_a_terminal_that_is_gone_loses_nothing(words, whole, train, tmp_path):
    run, (ours, theirs) = tmp_path / "run", os.openpty()
    training = subprocess.Popen(
        [sys.executable, "train_sft.py", *words, f"run.directory={run}"], cwd=ROOT,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    threading.Thread(target=lambda: read_all(ours, until=lambda: (run / "log.jsonl").exists()), daemon=True).start()
    end = time.monotonic() + 240
    while not (run / "log.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert training.wait(timeout=240) == -signal.SIGHUP
    assert_goes_on(train, whole, run)


def test_what_is_written_to_a_terminal_that_is_gone_is_lost_and_nothing_else():
    """The terminal may be gone some moments before the signal comes."""
    ours, theirs = os.openpty()
    program = (
        "import os, sys\nfrom sft.training.stopping import Signals\n"
        "with Signals():\n    print('ready', flush=True)\n    sys.stdin.read()\n"
        "    for _ in range(3): print('lost', flush=True), print('lost', file=sys.stderr, flush=True)\n"
        "os._exit(7)"
    )
    asked, tell = os.pipe()
    writing = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=asked, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(asked)
    assert os.read(ours, 100)
    os.close(ours)  # it is no session's terminal, so no signal comes at all
    os.close(tell)
    assert writing.wait(timeout=120) == 7


def test_under_nohup_a_terminal_that_is_gone_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def read_all(terminal, until):
    """What a terminal does with what is written to it, and then it is gone."""
    while not until():
        os.read(terminal, 10_000)
    os.close(terminal)


LATE = {
    "the optimizer's step": (RunTrainer, "_get_grad_norm", 5, 5),
    "saving": (RunTrainer, "_save_rng_state", 2, 6),
    "the last validation": (RunTrainer, "evaluate", 2, 12),
    "before the first step": (RunTrainer, "_get_num_items_in_batch", 1, 0),
}
"""What is being done when the signal comes, the how manieth time, and the step that is the last whole one then."""


@pytest.mark.parametrize("moment", moments(LATE))
def test_a_signal_at_an_odd_moment_saves_the_last_whole_step_too(train, whole, tmp_path, monkeypatch, moment):
    owner, name, count, step = LATE[moment]
    does, calls = getattr(owner, name), iter(range(1, 1000))

    def signalled(*args, **kwargs):
        if next(calls) == count:
            signal.raise_signal(signal.SIGTERM)
        return does(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        patch.setattr("sft.training.stopping.os.kill", lambda pid, number: sys.exit(128 + number))
        stopped = train()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert f"stopped after step {step} of 12" in stopped.stderr
    if step:
        assert checkpoints.newest_whole(tmp_path / "run" / "checkpoints").name == f"checkpoint-{step}"
        assert_goes_on(train, whole, tmp_path / "run")
    else:
        assert "nothing was learned yet" in stopped.stderr


@pytest.mark.parametrize("what", ["loss", pytest.param("gradient", marks=pytest.mark.slow)])
def test_numbers_that_are_not_finite_stop_the_run_with_the_rows_named_and_the_step_before_saved(
    train, whole, tmp_path, monkeypatch, what
):
    owner, name = (RunTrainer, "compute_loss") if what == "loss" else (RunTrainer, "_clip_grad_norm")
    does = getattr(owner, name)
    indexes = []
    collate = sft.training.trainer.StepCollator.__call__

    def seen(self, micro_batches):
        batch = collate(self, micro_batches)
        indexes.append(batch["rows"])
        return batch

    def broken(self, *args, **kwargs):
        value = does(self, *args, **kwargs)
        return value * float("nan") if self.state.global_step == 4 else value

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        patch.setattr(sft.training.trainer.StepCollator, "__call__", seen)
        stopped = train()
    assert stopped.returncode == 2
    assert f"the {what} became nan at step 5, in rows " in stopped.stderr
    assert "step 4 is saved, and --resume goes on from there" in stopped.stderr
    fifth = indexes[4]
    suspects = fifth[0] if what == "loss" else [row for rows in fifth for row in rows]
    named = stopped.stderr.partition("in rows ")[2].partition(";")[0].removesuffix(", …").split(", ")
    assert set(named) == set(suspects[: sft.training.stopping.SHOWN_ROWS])
    assert_goes_on(train, whole, tmp_path / "run")


def test_a_loss_that_is_not_finite_at_once_leaves_nothing_to_go_on_from(train, monkeypatch):
    monkeypatch.setattr(RunTrainer, "compute_loss", lambda *_, **__: torch.tensor(float("inf"), requires_grad=True))
    stopped = train()
    assert stopped.returncode == 2
    assert "the loss became inf at step 1" in stopped.stderr
    assert "nothing was learned yet" in stopped.stderr


def test_too_little_gpu_memory_is_answered_with_settings_that_need_less(train, monkeypatch):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RunTrainer, "compute_loss", out_of_memory)
    monkeypatch.setattr("sft.plan.memory.CUDA_BYTES", 0)  # more than all the rest of the tiny model
    stopped = train("training.per_device_train_batch_size=4")
    assert stopped.returncode == 2
    assert "the GPU's memory does not suffice: set training." in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_a_run_whose_loss_does_not_fall_says_so(tmp_path, capsys):
    def said(*losses):
        log = tmp_path / "log.jsonl"
        log.write_text("".join(json.dumps({"step": n, "loss": loss}) + "\n" for n, loss in enumerate(losses)))
        warn_of_loss(log)
        return capsys.readouterr().err

    assert "3.000 at first, 3.000 at last" in said(*[3.0] * 20)
    assert "the loss did not fall (1.000 at first, 2.000 at last): the model may have learned nothing" in said(1, 2)
    assert said(*[5.0 - n / 10 for n in range(20)]) == said(5.0) == ""


def test_a_training_without_any_end_of_text_is_refused(train):
    done = train("data.truncation=end", "training.max_length=32")
    assert done.returncode == 2
    assert "the model would never learn to stop; set data.truncation=context or a larger training" in done.stderr


LIMITED = (
    "import resource, runpy, signal, sys\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
    "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""No file may become longer than so many bytes: the error is not quite a full disk's, and takes the same way."""


def limited(command, size, *words):
    return command("-c", LIMITED, size, *words, env=os.environ | {"MPLCONFIGDIR": "/tmp"})


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file size are set as Linux does it")
def test_a_disk_without_room_for_a_checkpoint_is_a_line_and_nothing_is_lost(command, train, words, whole, tmp_path):
    run = tmp_path / "run"
    full = limited(command, 300_000, "train_sft.py", *words, f"run.directory={run}")  # the tokenizer takes more
    assert full.returncode == 2, full.stderr
    assert "checkpoint-3: cannot be written: File too large; the checkpoints before it are kept" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((run / "checkpoints").iterdir())
    assert "no whole checkpoint yet" in train("--resume").stderr


def bomb(path, mark):
    """A pickle that makes the file `mark` when it is loaded."""

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"state": Bomb()}, path)
    if not mark.exists():  # the bomb is one
        torch.load(path, weights_only=False)
    mark.unlink()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("training_args.bin", "scheduler.pt", "rng_state.pth")]


@pytest.mark.parametrize("name", ["optimizer.pt", *SLOW])
def test_code_in_a_checkpoint_is_never_run(train, kill, tmp_path, name):
    run, mark = tmp_path / "run", tmp_path / "mark"
    kill("a step")
    checkpoint = checkpoints.newest_whole(run / "checkpoints")
    bomb(checkpoint / name, mark)
    before = train("--resume")  # it is not what was written, so the one before it is taken
    assert f"{checkpoint.name} is passed over: {name} is damaged" in before.stderr
    assert not mark.exists()
    shutil.rmtree(run)
    kill("a step")
    # Whoever can write the bomb can write the hashes, too.
    bomb(checkpoint / name, mark)
    record = json.loads((checkpoint / checkpoints.RECORD).read_text())
    aside = run / "checkpoints" / checkpoints.ASIDE
    aside.mkdir()
    (checkpoint / checkpoints.RECORD).unlink()
    checkpoint.rename(aside / checkpoint.name)
    checkpoints.complete(aside / checkpoint.name, record["run"])
    forged = train("--resume")
    assert not mark.exists()
    if name == "training_args.bin":
        assert forged.returncode == 0, forged.stderr
    else:
        assert forged.returncode == 2
        assert "holds more than tensors, and is not read" in forged.stderr


def test_another_runs_checkpoint_is_passed_over(train, kill, tmp_path):
    run = tmp_path / "run"
    kill("a step")
    for checkpoint in (run / "checkpoints").iterdir():
        record = json.loads((checkpoint / checkpoints.RECORD).read_text())
        (checkpoint / checkpoints.RECORD).write_text(json.dumps(record | {"run": "another"}))
    resumed = train("--resume")
    assert resumed.returncode == 2
    assert "checkpoint-6 is passed over: it is another run's" in resumed.stderr
    assert "no whole checkpoint yet" in resumed.stderr


def test_what_is_damaged_neither_counts_nor_costs_what_is_whole(train, kill, whole, tmp_path):
    kill("a step")
    run = tmp_path / "run"
    damaged = run / "checkpoints" / "checkpoint-11"
    shutil.copytree(run / "checkpoints" / "checkpoint-6", damaged)
    (damaged / "optimizer.pt").write_bytes(b"")
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')  # cut by a full disk
    resumed = train("--resume", "training.save_total_limit=1")
    assert resumed.returncode == 0, resumed.stderr
    assert "checkpoint-11 is passed over" in resumed.stderr
    assert (run / ADAPTER).read_bytes() == whole
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left[0] == "checkpoint-12"
    assert left[1].startswith("damaged-checkpoint-11-")
    assert len(left) == 2


def test_a_run_that_logs_no_loss_finishes(train, whole, tmp_path):
    done = train("training.logging_steps=1000")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / ADAPTER).read_bytes() == whole


def test_the_best_of_several_checkpoints_is_not_looked_for(train):
    for wrong in ("training.load_best_model_at_end=true", "training.save_strategy=best"):
        done = train(wrong)
        assert done.returncode == 2
        assert wrong.partition("=")[0] in done.stderr


def make_checkpoint(root, step, run_id="run"):
    aside = root / checkpoints.ASIDE / f"checkpoint-{step}"
    (aside / "deep").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "deep/part.pt"):
        (aside / name).write_bytes(bytes([step]) * 100)
    checkpoints.complete(aside, run_id)
    return root / f"checkpoint-{step}"


def test_old_checkpoints_go_by_step_and_not_by_age(tmp_path):
    for step in (10, 9, 100):
        made = make_checkpoint(tmp_path, step)
        os.utime(made, (1, 1) if step == 100 else None)
    checkpoints.remove_old(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    checkpoints.remove_old(tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoints.newest_whole(tmp_path, "run").name == "checkpoint-100"


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    damaged = make_checkpoint(tmp_path, 3)
    (damaged / "deep" / "part.pt").write_bytes(b"")
    with pytest.raises(UserError, match="no whole checkpoint yet"):
        checkpoints.newest_whole(tmp_path)
    make_checkpoint(tmp_path, 3)
    assert checkpoints.newest_whole(tmp_path) == damaged


# Campaigns: `make test-faults`.


def start(words, run, *more):
    command = [sys.executable, "train_sft.py", *words, f"run.directory={run}", *more]
    log = (run.parent / "output.txt").open("ab")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def newest_step(run):
    return max((int(path.name.rsplit("-")[-1]) for path in (run / "checkpoints").glob("checkpoint-*")), default=0)


@pytest.mark.slow
def test_thirty_kills_at_random_moments_lose_no_more_than_the_steps_since_a_checkpoint(words, command, tmp_path):
    """Kill -9 at moments drawn from the time that a training is at work, checkpoints every other step included."""
    long = [*words, "training.num_train_epochs=30", "training.save_steps=2", "training.logging_steps=1"]
    calm = tmp_path / "calm" / "run"
    done = command("train_sft.py", *long, f"run.directory={calm}")
    assert done.returncode == 0, done.stderr
    chance, lost, runs = random.Random(0), [], 0
    while len(lost) < 30:
        run = tmp_path / f"killed-{runs}" / "run"
        run.parent.mkdir()
        runs += 1
        lost += lost_to_kills(long, run, chance)
        assert (run / ADAPTER).read_bytes() == (calm / ADAPTER).read_bytes()
    print(f"{len(lost)} kills of {runs} trainings; steps lost by one: {max(lost)} at most")
    assert max(lost) <= 2 + 1  # the checkpoint of the last one may not have been finished


def lost_to_kills(words, run, chance):
    """Train to the end, killed again and again; the steps that each kill lost."""
    lost = []
    while True:
        before = newest_step(run)
        process = start(words, run, *(["--resume"] if (run / "manifest.json").exists() else ["--force"]))
        deadline = time.monotonic() + 120
        moment = None  # it begins with the process's first new checkpoint, or earlier in one of four tries
        early = chance.random() < 0.25
        while process.poll() is None:
            if moment is None and (early or newest_step(run) > before):
                moment = time.monotonic() + (chance.uniform(0, 8) if early else chance.uniform(0, 1.5))
            if moment is not None and time.monotonic() >= moment:
                process.kill()
                process.wait()
                break
            assert time.monotonic() < deadline
            time.sleep(0.002)
        output = (run.parent / "output.txt").read_text(errors="replace")
        assert "Traceback" not in output, output[-3000:]
        log = run / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        reached = max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)
        assert newest_step(run) >= before
        if process.returncode != 0:
            assert process.returncode == -signal.SIGKILL, output[-3000:]
            lost.append(reached - newest_step(run))
        manifest = run / "manifest.json"
        if manifest.exists() and json.loads(manifest.read_text())["status"] == "finished":  # a kill may come after it
            return lost


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_real_signal_ends_the_process_as_it_should(words, whole, command, tmp_path, number):
    run = tmp_path / "run"
    process = start([*words, "training.save_steps=1000"], run)
    while not (run / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == -number
    assert newest_step(run) > 0
    resumed = command("train_sft.py", *words, f"run.directory={run}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (run / ADAPTER).read_bytes() == whole


@pytest.mark.slow
def test_kills_while_answering_and_reporting_change_no_prediction_and_no_number(words, command, tmp_path):
    run, chance, kills = tmp_path / "run", random.Random(1), 0
    done = command("train_sft.py", *words, f"run.directory={run}")
    assert done.returncode == 0, done.stderr
    calm = tmp_path / "calm"
    shutil.copytree(run, calm)
    more = ["eval.batch_tokens=512", "generation.max_new_tokens=48", "eval.resamples=2000"]
    done = command("-m", "eval", calm, *more)
    assert done.returncode == 0, done.stderr
    while True:
        killed = [sys.executable, "-m", "eval", str(run), *more]
        with (tmp_path / "output.txt").open("ab") as log:
            process = subprocess.Popen(killed, cwd=ROOT, stdout=log, stderr=log)
        try:
            process.wait(chance.uniform(4, 4 + 3 * (kills + 1)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        break
    assert process.returncode == 0, (tmp_path / "output.txt").read_text(errors="replace")[-3000:]
    print(f"{kills} kills while answering and reporting")
    assert kills >= 3
    assert (run / "eval" / "predictions.jsonl").read_bytes() == (calm / "eval" / "predictions.jsonl").read_bytes()
    numbers = [json.loads((where / "eval" / "results.json").read_text())["systems"] for where in (run, calm)]
    assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_steps(words, command, tmp_path):
    run = tmp_path / "run"
    more = ["data.train_rows=80", "training.num_train_epochs=200", "training.save_steps=200"]
    done = command("train_sft.py", *words, *more, f"run.directory={run}")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    peak = {record["step"]: record["memory_peak_bytes"] for record in records if "memory_peak_bytes" in record}
    assert max(peak) == 2000
    print("MiB: " + ", ".join(f"step {step}: {peak[step] / 2**20:.1f}" for step in (10, 100, 500, 1000, 2000)))
    assert peak[2000] < 1.02 * peak[500]


ANSWERING = """
import json, sys
from pathlib import Path
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.generation.answerer import load_answerer, open_run
from sft.generation.generate import generate_all

answerer = load_answerer(open_run(Path(sys.argv[1]), ["generation.max_new_tokens=8"]))
examples = list(examples_of(load_data("data/sample.jsonl").rows))
prompts = [answerer.prompt(e.instruction, e.input).ids for e in examples][:250]

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

sizes = []
for turn in range(20):
    list(generate_all(answerer.model, answerer.tokenizer, prompts, [answerer.generation], 4096, range(len(prompts))))
    sizes.append(resident())
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read as Linux tells it")
def test_memory_stays_flat_over_five_thousand_answers(words, command, tmp_path):
    run = tmp_path / "run"
    done = command("train_sft.py", *words, f"run.directory={run}")
    assert done.returncode == 0, done.stderr
    answered = command("-c", ANSWERING, run)
    assert answered.returncode == 0, answered.stderr
    sizes = json.loads(answered.stdout)
    print("MiB after 250, 1,000, 2,500, 5,000 answers: ", *(f"{sizes[n] / 2**20:.1f}" for n in (0, 3, 9, 19)))
    assert sizes[19] < 1.02 * sizes[3]


@pytest.mark.slow
def test_files_of_any_size_that_do_not_fit_are_a_line(words, command, tmp_path):
    """Every limit of file size from a hundred bytes to a megabyte: whatever cannot be written first, it is a line."""
    ends = {}
    for size in (100, 1_000, 3_000, 10_000, 30_000, 60_000, 100_000, 200_000, 400_000, 1_000_000):
        run = tmp_path / str(size)
        done = limited(command, size, "train_sft.py", *words, f"run.directory={run}")
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        ends[size] = done.stderr.strip().splitlines()[-1]
        if (run / "adapter").exists():
            assert (run / "adapter" / "adapter_model.safetensors").stat().st_size <= size
    print("\n".join(f"{size}: {line}" for size, line in ends.items()))
    assert len(set(ends.values())) > 2


def test_going_on_removes_what_a_kill_left_half_written(tmp_path):
    for name in ("checkpoint-1", "checkpoint-2", checkpoints.ASIDE):
        (tmp_path / name).mkdir()
    checkpoints.go_on_from(tmp_path / "checkpoint-1")
    left = sorted(re.sub("[0-9a-f]{8}$", "", path.name) for path in tmp_path.iterdir())
    assert left == ["checkpoint-1", "damaged-checkpoint-2-"]
