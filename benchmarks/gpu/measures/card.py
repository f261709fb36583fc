"""The card: its name, its memory, the versions, and how fast a plain product of matrices is on it."""

import importlib.metadata
import platform
import re
import statistics
import subprocess
import time
from datetime import date
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.work import Measures, Work
from sft.plan.cards import find_card
from sft.run.manifest import PACKAGES
from sft.system.errors import UserError


def measures(work: Work, part: str) -> Measures:
    """A product of two matrices in bf16, and all that has to be known of the device to read the other numbers."""
    yield "a product", partial(product, work)


def product(work: Work) -> dict[str, Any]:
    """TFLOP/s of a square product in bf16 of random numbers (zeros would be faster), and the device."""
    side = 8192 if work.on_gpu else 256
    a, b = (torch.randn(side, side, device=work.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        clock = time.perf_counter()
        a @ b
        if work.on_gpu:
            torch.cuda.synchronize(work.device)
        seconds.append(time.perf_counter() - clock)
    return {
        "product_tflops": 2 * side**3 / statistics.median(seconds[3:]) / 1e12,
        "side": side,
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        **(described(work.device) if work.on_gpu else {"device": "CPU"}),
    }


def version(package: str) -> str | None:
    """Its version; None: not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def described(device: torch.device) -> dict[str, Any]:
    """Name, memory and capability of a GPU, its driver, and its peak by NVIDIA's data sheet where that is known."""
    properties = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = None
    return {
        "device": properties.name,
        "memory": properties.total_memory,
        "capability": f"sm_{properties.major}{properties.minor}",
        "cuda": torch.version.cuda,
        "driver": driver,
        "datasheet_tflops": datasheet_tflops(properties.name),
    }


def datasheet_tflops(name: str) -> float | None:
    """The peak of the card that calls itself `name`; None: not in the table of `sft.plan.cards`."""
    try:
        return find_card(re.sub(r"^Tesla |-SXM\d|-PCIE| 80GB HBM3$", "", name)).tflops
    except UserError:
        return None
