"""The hub's tokens: in no file that is written, in no output, in no message, wherever they came from."""

import json
import re
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from sft.config.load import load_config
from sft.data.read import load_data
from sft.export.upload import push
from sft.model import load as loading
from sft.system.errors import UserError
from sft.system.visible import holds_token, without_tokens

ROOT = Path(__file__).parents[1]
TOKEN = "hf_" + "Ab3" * 11 + "Z"
OTHER = "hf_" + "Xy9" * 11 + "Q"
OWN = "a-mirrors-own-token"  # of no known form, but in the environment
SECRETS = (TOKEN, OTHER, OWN)
PIECES = re.compile("Ab3Ab3|Xy9Xy9|mirrors-own|secret1")


@pytest.fixture
def logged_in(monkeypatch, tmp_path):
    """Tokens in every place where the hub's library looks for one."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", OWN)
    path = tmp_path / "home" / "token"
    path.parent.mkdir()
    path.write_text(OTHER)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    return path


def test_no_file_and_no_output_of_a_run_holds_a_token(logged_in, trained_run, program, tmp_path):
    run = tmp_path / "runs" / "run"
    quick = ["eval.rows_per_category=1", "eval.resamples=10", "generation.max_new_tokens=2"]
    data = tmp_path / "questions.jsonl"
    data.write_text(json.dumps({"instruction": "首都は?"}) + "\n")
    outputs = []
    for words in (
        ["train_sft", trained_run / "config.yaml", f"run.directory={run}"],
        ["infer", run, "--jsonl", data, "--output", tmp_path / "runs" / "answers.jsonl", quick[-1]],
        ["eval.__main__", run, *quick],
        ["sft.export.__main__", run, "--base-id", "none"],
    ):
        result = program(*words)
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout + result.stderr)
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"manifest.json", "config.yaml", "README.md", "training_args.bin", "log.jsonl", "report.html"} <= {
        path.name for path in files
    }
    assert logged_in.read_text() == OTHER
    for secret in SECRETS:
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert not [output for output in outputs if secret in output]


@pytest.mark.parametrize(
    "override",
    [
        f"model.revision={TOKEN}",
        f"model.base=https://user:{TOKEN}@huggingface.co/x",
        f"model.base=https://user:{'secret1'}@example.com/x",
        f"data.path=hf://{TOKEN}@datasets/x",
        f"training.hub_token={TOKEN}",
        f"training.{TOKEN}=1",
        f"training.run_name={OWN}",
        f"run.directory=runs/{TOKEN}",
        f"lora.target_modules=[{TOKEN}]",
        f"generation={{{TOKEN}: 1}}",
        f"training={{optim_args: {{a: [{TOKEN}]}}}}",
        f"prompt.template={{with_input: '{TOKEN}', without_input: x}}",
        TOKEN,
        f"{TOKEN}={TOKEN}",
        f"lora.r=[{TOKEN}",
    ],
)
def test_a_configuration_with_a_token_is_refused_without_showing_it(logged_in, program, tmp_path, override):
    with pytest.raises(UserError) as error:
        load_config(ROOT / "configs" / "tiny.yaml", [override])
    assert not PIECES.search(str(error.value))
    result = program("train_sft", "configs/tiny.yaml", f"run.directory={tmp_path / 'run'}", override)
    assert result.returncode == 2
    assert not PIECES.search(result.stdout + result.stderr)
    assert not list(tmp_path.glob("run*"))


def test_a_token_in_the_file_is_refused_with_its_key(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{base: x}}\ndata: {{path: y, revision: {TOKEN}}}\n")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert (
        str(error.value) == f"{path}: data.revision: holds a login, a key or a signature; "
        "take it out (for the hub: `hf auth login`, or HF_TOKEN)"
    )


@pytest.mark.parametrize("secret", SECRETS)
def test_what_the_hubs_library_says_is_passed_on_without_tokens(logged_in, monkeypatch, tmp_path, secret):
    response = httpx2.Response(401, request=httpx2.Request("GET", f"https://user:{secret}@huggingface.co/x"))

    def refuse(*args, **kwargs):
        raise HfHubHTTPError(f"401: invalid token {secret} for https://user:secret1@huggingface.co", response=response)

    monkeypatch.setattr(loading, "hub_is_absent", lambda: False)
    monkeypatch.setattr("sft.system.hub.hub_is_absent", lambda: False)
    monkeypatch.setattr("datasets.load_dataset", refuse)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", refuse)
    calls = (
        lambda: load_data("someone/rows"),
        lambda: loading.load_tokenizer("someone/model"),
        lambda: loading.load_base("someone/model", torch.device("cpu"), torch.float32),
    )
    for call in calls:
        with pytest.raises(UserError) as error:
            call()
        # A secret of no known form is known from the environment; the file's one has the hub's form.
        assert not PIECES.search(str(error.value))


def test_an_uploads_refusal_is_passed_on_without_tokens(logged_in, monkeypatch, tmp_path):
    class Hub:
        def create_repo(self, *args, **kwargs):
            raise ValueError(f"bad header: Bearer {TOKEN} {OWN}")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(UserError) as error:
        push(tmp_path, "someone/model", private=False, yes=True)
    assert "bad header: Bearer" in str(error.value)
    assert not PIECES.search(str(error.value))


@pytest.mark.parametrize("text", [TOKEN, f"x{TOKEN}y", f"https://user:{TOKEN}@x.example/x", "hf://secret1@datasets/x"])
def test_tokens_and_logins_are_left_out(text):
    assert holds_token(text)
    assert not PIECES.search(without_tokens(text))
    assert without_tokens(without_tokens(text)) == without_tokens(text)


MADE_UP = "Q7w" * 12
SIGNED = "https://x.example/rows.jsonl?X-Amz-Expires=60&X-Amz-Signature="


@pytest.mark.parametrize(
    "start",
    ["sk-", "sk-proj-", "AKIA", "ghp_", "github_pat_", "glpat-", "xoxb-", "AIza", SIGNED, "?sig=", "&access_token=",
     "?api_key="],
)  # fmt: skip
def test_keys_of_other_services_and_signatures_are_left_out(start, tmp_path, program):
    assert MADE_UP not in without_tokens(f"a {start}{MADE_UP} b")
    for key in ("run.directory", "data.path", "model.base"):
        result = program("train_sft", "configs/tiny.yaml", f"{key}={tmp_path}/{start}{MADE_UP}", "--dry-run")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert f"{key}: holds a login" in result.stderr
        assert MADE_UP not in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "task-based",
        "sk-learn",
        "ask-me-anything-about-japanese-cities",
        "a?b=1&key",
        "hf_datasets",
        "an hf_hub_download",
        "a@b.example",
        "https://hub.example/a@b",
        "x@y:z",
    ],
)
def test_what_only_looks_like_a_login_stays(text):
    assert without_tokens(text) == text
    assert not holds_token(text)
