"""Uploads, against a hub that is made up: what it is asked for, and its refusals as one line."""

import io
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from sft.export.upload import check_login, check_repo_id, push
from sft.system.errors import UserError

TOKEN = "hf_secret"


class FakeHub:
    """Records what HfApi is asked to do; `refusal` is raised by the call of that name."""

    def __init__(self, private: bool = False, refusal: tuple[str, Exception] | None = None) -> None:
        self.private = private
        self.refusal = refusal
        self.calls: list[tuple[str, dict]] = []

    def _called(self, name: str, **arguments: object) -> SimpleNamespace:
        self.calls.append((name, arguments))
        if self.refusal and self.refusal[0] == name:
            raise self.refusal[1]
        return SimpleNamespace(private=self.private, commit_url="https://hub.example/commit/1")

    def create_repo(self, repo_id, **arguments):
        return self._called("create_repo", repo_id=repo_id, **arguments)

    def repo_info(self, repo_id, **arguments):
        return self._called("repo_info", repo_id=repo_id, **arguments)

    def upload_folder(self, **arguments):
        return self._called("upload_folder", **arguments)


@pytest.fixture
def exported(tmp_path):
    directory = tmp_path / "adapter"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "optimizer.pt").write_bytes(b"x")
    (directory / "adapter_model.safetensors").write_bytes(b"x" * 1_500_000)
    (directory / "README.md").write_text("# 札", encoding="utf-8")
    return directory


def use(monkeypatch, hub: FakeHub) -> FakeHub:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    return hub


def test_the_files_are_shown_and_uploaded_as_one_commit(exported, monkeypatch, capsys):
    hub = use(monkeypatch, FakeHub())
    push(exported, "someone/model", private=False, yes=True)
    (made, arguments), (uploaded, upload) = hub.calls
    assert (made, uploaded) == ("create_repo", "upload_folder")
    assert arguments == {"repo_id": "someone/model", "private": None, "repo_type": "model", "exist_ok": True}
    assert (upload["repo_id"], upload["folder_path"]) == ("someone/model", exported)
    assert upload["allow_patterns"] == ["README.md", "adapter_model.safetensors"]
    assert {"model*.safetensors", "config.json", "model-*.gguf", "Modelfile"} <= set(upload["delete_patterns"])
    assert "README.md" not in upload["delete_patterns"]
    output = capsys.readouterr().out
    for text in (
        "someone/model (public",
        "1.5 MB  adapter_model.safetensors",
        "uploaded: https://hub.example/commit/1",
    ):
        assert text in output
    assert TOKEN not in output + str(hub.calls)


def test_private_is_asked_for_and_checked(exported, monkeypatch):
    hub = use(monkeypatch, FakeHub(private=True))
    push(exported, "someone/model", private=True, yes=True)
    assert hub.calls[0][1]["private"] is True
    assert [name for name, _ in hub.calls] == ["create_repo", "repo_info", "upload_folder"]
    hub = use(monkeypatch, FakeHub(private=False))
    with pytest.raises(UserError, match="is there and public"):
        push(exported, "someone/model", private=True, yes=True)
    assert "upload_folder" not in [name for name, _ in hub.calls]


@pytest.mark.parametrize(("answer", "uploads"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_somebody_at_the_terminal_is_asked(exported, monkeypatch, capsys, answer, uploads):
    hub = use(monkeypatch, FakeHub())
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    push(exported, "someone/model", private=False, yes=False)
    assert bool(hub.calls) is uploads
    assert ("nothing was uploaded" in capsys.readouterr().out) is not uploads


def test_where_nobody_can_be_asked_nothing_is_uploaded(exported, monkeypatch):
    hub = use(monkeypatch, FakeHub())
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match="--yes uploads without a question"):
        push(exported, "someone/model", private=False, yes=False)
    assert hub.calls == []


def http_error(message: str) -> HfHubHTTPError:
    return HfHubHTTPError(message, response=SimpleNamespace(headers={}, request=None, status_code=403))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("create_repo", http_error("403 Forbidden: you have no right\n\nmore"), r"403 Forbidden: you have no right\);"),
        ("upload_folder", ConnectionError("no route to host"), "no route to host"),
        ("upload_folder", ValueError(""), "ValueError"),
    ],
)
def test_a_refusal_is_one_line_and_keeps_the_export(exported, monkeypatch, call, error, message):
    use(monkeypatch, FakeHub(refusal=(call, error)))
    with pytest.raises(UserError, match=message) as caught:
        push(exported, "someone/model", private=False, yes=True)
    assert str(exported) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_logged_in_is_told_before_any_work(monkeypatch, tmp_path, program):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    result = program("sft.export.__main__", Path("absent"), "--push", "someone/model")
    assert (result.returncode, result.stderr.strip()) == (
        2,
        "error: --push: nobody is logged in to the hub here; run `hf auth login`, or set HF_TOKEN",
    )
    with pytest.raises(UserError, match="hf auth login"):
        check_login()
    check_repo_id("--push", "someone/model")
