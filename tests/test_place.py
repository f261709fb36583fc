"""Where a process runs: why PyTorch sees no GPU, and which GPUs it cannot use."""

import re
from pathlib import Path

import pytest
import torch

from sft.model import place
from sft.plan.cards import CARDS, find_card
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]


class Nvml:
    """NVIDIA's management library, of which a driver has this version."""

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.nvmlInit_v2 = self.nvmlShutdown = lambda: None

    def nvmlSystemGetDriverVersion(self, text, size: int) -> None:  # noqa: N802
        assert len(self.version) < size
        text.value = self.version


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes this look like a machine with that driver and PyTorch built for that CUDA (None: without)."""

    def make(driver_file=None, nvml=None, cuda="13.0", platform="linux"):
        path = tmp_path / "version"
        path.unlink(missing_ok=True)
        if driver_file:
            path.write_text(driver_file, encoding="utf-8")
        monkeypatch.setattr(place, "DRIVER", path)
        monkeypatch.setattr(place.sys, "platform", platform)
        monkeypatch.setattr(place, "NVML", "a-library-that-is-absent.so")
        if nvml is not None:
            monkeypatch.setattr(place.ctypes, "CDLL", lambda name: Nvml(nvml))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        place.driver_version.cache_clear()
        place._warn_once.cache_clear()

    yield make
    place.driver_version.cache_clear()


def kernel_module(version: str) -> str:
    return f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\nGCC version: 13.2.0\n"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"driver_file": kernel_module("550.54.15")}, r"is 550\.54\.15, and CUDA 13\.0 needs 580 or newer; update it"),
        ({"nvml": b"535.183.01"}, r"driver is 535\.183\.01, and CUDA 13\.0 needs 580"),
        ({"nvml": b""}, "no NVIDIA driver"),
        ({}, r"no NVIDIA driver was found, and CUDA 13\.0 needs 580 or newer; run on a machine with one"),
        ({"driver_file": kernel_module("580.95.05")}, r"is 580\.95\.05, new enough for CUDA 13\.0; see whether"),
        ({"driver_file": kernel_module("550.54.15"), "cuda": "12.6"}, r"is 550\.54\.15, new enough for CUDA 12\.6"),
        ({"driver_file": kernel_module("470.82.01"), "cuda": "12.6"}, r"470\.82\.01, and CUDA 12\.6 needs 525"),
        ({"cuda": None}, r"is built without CUDA; install one that has it \(docs/installing\.md\)"),
        ({"cuda": None, "platform": "win32"}, r"no PyTorch for GPUs on Windows; run in WSL2 \(docs/installing\.md\)"),
    ],
)  # fmt: skip
def test_a_missing_gpu_is_said_with_its_reason_and_the_remedy(machine, found, message):
    machine(**found)
    with pytest.raises(
        UserError, match=rf"^model\.device is cuda, but PyTorch sees no GPU here: .*{message}.*or try"
    ) as e:
        place.resolve_device("cuda")
    assert "\n" not in str(e.value)
    assert place.resolve_device("cpu") == torch.device("cpu")


def test_the_document_that_is_pointed_to_is_of_the_pinned_pytorch():
    document = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    (pin,) = re.findall(r"^torch==\S+$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"torch==[\d.]+\d", document)) == {pin}
    assert all(f"driver {oldest} or newer" in document for oldest in place.DRIVERS.values())


def test_auto_says_once_that_it_leaves_a_gpu_with_a_driver_unused(machine, monkeypatch, capsys):
    machine(kernel_module("550.54.15"))
    assert [place.resolve_device("auto") for _ in range(2)] == [torch.device("cpu")] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: model.device: auto is the CPU here, although there is an NVIDIA driver: ")
    assert "550.54.15" in line
    machine(kernel_module("550.54.15"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    place.resolve_device("auto")
    machine()
    place.resolve_device("auto")
    assert not capsys.readouterr().err


def test_a_gpu_that_this_pytorch_has_no_kernels_for_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100-SXM2-16GB")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.raises(
        UserError, match=r"Tesla V100-SXM2-16GB \(sm_70\) is older than all .*13\.0.*docs/installing\.md"
    ):
        place.resolve_device("auto")
    for capability in ((7, 5), (8, 9), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert place.resolve_device("cuda") == torch.device("cuda", 0)


@pytest.mark.parametrize(
    "card", ["V100", "Tesla V100-SXM2-32GB", "v100-16gb", "P100", "GTX 1080 Ti", "NVIDIA TITAN Xp"]
)
def test_a_card_that_cuda_13_has_dropped_is_not_planned_for_and_the_reason_is_said(card):
    with pytest.raises(UserError, match=r"CUDA 13, which the pinned PyTorch is built with, has dropped it; .*its size"):
        find_card(card)


def test_no_dropped_card_is_recommended():
    with pytest.raises(UserError, match=r"unknown; give its size, such as 24GB, or one of T4, RTX3090, ") as error:
        find_card("GTX 1660")
    assert "V100" not in str(error.value)
    assert all(find_card(card.name) == card for card in CARDS)
