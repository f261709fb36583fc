"""Loading from the hub: what it is asked for, its refusals in one line each, and pickles that must not run."""

import socket
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sft.model import load as loading
from sft.system.errors import UserError
from sft.system.hub import hub_is_absent

CPU = torch.device("cpu")
REPOSITORY = "meta-llama/Llama-2-7b-hf"


@pytest.fixture
def reachable(monkeypatch):
    """A hub whose name can be resolved, whatever there is here."""
    monkeypatch.setattr(loading, "hub_is_absent", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def refusing(kind):
    """A download that the hub answers with `kind`."""

    response = httpx2.Response(403, request=httpx2.Request("GET", constants.ENDPOINT))

    def download(*args, **kwargs):
        raise kind("403 Client Error.\n\nAsk for access.", response=response)

    return download


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            GatedRepoError,
            ["it is gated", f"accept its terms at https://huggingface.co/{REPOSITORY}", "`hf auth login`"],
        ),
        (
            RepositoryNotFoundError,
            ["the hub has no such repository, or it is private", "check the spelling", "`hf auth login`"],
        ),
        (RevisionNotFoundError, ["no such revision", f"{REPOSITORY}/commits/main"]),
    ],
)
@pytest.mark.parametrize(
    ("what", "load"),
    [
        ("tokenizer", lambda: loading.load_tokenizer(REPOSITORY, "v1")),
        ("model", lambda: loading.load_base(REPOSITORY, CPU, torch.float32, revision="v1")),
    ],
)
def test_the_hubs_refusals_are_one_line_with_what_to_do(reachable, monkeypatch, kind, words, what, load):
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", refusing(kind))
    monkeypatch.setattr("transformers.utils.hub.snapshot_download", refusing(kind))
    with pytest.raises(UserError) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"{what} {REPOSITORY}: cannot be loaded")
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_offline_without_a_cache_says_so(monkeypatch):
    assert constants.HF_HUB_OFFLINE  # as conftest.py sets it
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE is set\\); unset it"):
        loading.load_tokenizer(REPOSITORY)
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        loading.load_base(REPOSITORY, CPU, torch.float32)


def test_a_hub_that_cannot_be_found_is_not_asked_again_and_again(monkeypatch):
    lookups = []

    def nowhere(host, *args, **kwargs):
        lookups.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    hub_is_absent.cache_clear()
    with pytest.raises(UserError, match=r"not in the cache, and https://huggingface.co cannot be reached\); check"):
        loading.load_tokenizer(REPOSITORY)
    assert lookups == ["huggingface.co"]
    hub_is_absent.cache_clear()
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:3128"})
    assert not hub_is_absent()
    hub_is_absent.cache_clear()


def test_revision_and_remote_code_reach_transformers_and_the_rest_is_left_to_its_environment(
    reachable, monkeypatch, capsys
):
    asked = {}

    def recorder(name):
        def from_pretrained(base, **options):
            asked[name] = options
            raise OSError("nothing here")

        return from_pretrained

    for cls in (AutoTokenizer, AutoModelForCausalLM, AutoConfig):
        monkeypatch.setattr(cls, "from_pretrained", recorder(cls.__name__))
    with pytest.raises(UserError):
        loading.load_tokenizer(REPOSITORY, "abc123")
    with pytest.raises(UserError):
        loading.load_base(REPOSITORY, CPU, torch.float32, revision="abc123")
    assert capsys.readouterr().err == ""
    for options in asked.values():
        assert (options["revision"], options["trust_remote_code"]) == ("abc123", False)
        assert not options["local_files_only"]
        assert not options.keys() & {"token", "cache_dir", "proxies", "force_download", "weights_only"}
    with pytest.raises(UserError):
        loading.load_tokenizer(REPOSITORY, "abc123", trust_remote_code=True)
    assert asked["AutoTokenizer"]["trust_remote_code"] is True
    assert capsys.readouterr().err.startswith(
        f"warning: model.trust_remote_code: Python code that comes with {REPOSITORY}"
    )


class Attack:
    """A pickle that writes a file when it is loaded without restraint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_in_a_pickle_are_loaded_but_its_code_is_not_run(small_base, tmp_path):
    base = Path(small_base("open-calm")["base"])
    weights = base / "pytorch_model.bin"
    assert not (base / "model.safetensors").exists()
    model = loading.load_base(str(base), CPU, torch.float32)
    saved = torch.load(weights, weights_only=True)
    torch.testing.assert_close(dict(model.state_dict()), dict(saved))

    for file in base.iterdir():
        if file != weights:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    ran = tmp_path / "ran"
    torch.save({**saved, "attack": Attack(ran)}, tmp_path / weights.name)
    with pytest.raises(UserError, match="cannot be loaded"):
        loading.load_base(str(tmp_path), CPU, torch.float32)
    assert not ran.exists()
    torch.load(tmp_path / weights.name, weights_only=False)
    assert ran.exists()  # it would have run


def test_a_cached_repository_needs_no_hub_and_its_revision_is_the_one_asked_for(small_base, tmp_path, monkeypatch):
    cache = tmp_path / "models--cyberagent--open-calm-small"
    for commit, family in (("a" * 40, "open-calm"), ("b" * 40, "rinna")):
        (cache / "snapshots").mkdir(parents=True, exist_ok=True)
        (cache / "snapshots" / commit).symlink_to(small_base(family)["base"])
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    newest = loading.load_tokenizer("cyberagent/open-calm-small")
    assert (newest.bos_token_id, newest.pad_token_id) == (0, 1)
    older = loading.load_tokenizer("cyberagent/open-calm-small", revision="b" * 40)
    assert (older.bos_token_id, older.eos_token_id) == (2, 3)
    assert older.decode(older("鱻\n")["input_ids"]) == "鱻\n"
    model = loading.load_base("cyberagent/open-calm-small", CPU, torch.float32, revision="b" * 40)
    assert model.config.eos_token_id == 3
    with pytest.raises(UserError, match="not in the cache"):
        loading.load_tokenizer("cyberagent/open-calm-small", revision="c" * 40)
