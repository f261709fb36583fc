"""A configuration for CUDA goes through a step at its real shape, on a GPU that is not there; what is wrong is found.

`make test-shapes` does it for all of them. A GPU is pretended for the rest of a process's life, so in one of its own.
"""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from benchmarks.shapes.bases import SHAPES
from benchmarks.shapes.guard import obstacle
from benchmarks.shapes.memory import Allocator
from benchmarks.shapes.run import for_cuda
from benchmarks.shapes.step import Found
from benchmarks.shapes.table import BEGIN, END, PAGE, problems
from sft.config.load import load_config
from sft.plan.memory import Layout, Need

MIB = 2**20
# With the CPU build of the torch that is pinned, nothing stands in the way, and nothing is skipped.
on_a_cpu_build = pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))

PLANTED = """
import torch
from benchmarks.shapes.driver import plug_in

gpu = plug_in("RTX3090")
found = {}

def tried(name, function):
    try:
        function()
    except (RuntimeError, TypeError) as error:
        found[name] = str(error)

with gpu:
    here, there = torch.ones(4, 8), torch.ones(4, 8, device="cuda")
    weight = torch.ones(8, 8, device="cuda", dtype=torch.bfloat16)
    tried("devices", lambda: here + there)
    tried("types", lambda: torch.nn.functional.linear(there, weight))
    attend = torch.nn.functional.scaled_dot_product_attention
    heads = torch.ones(1, 2, 16, 8, device="cuda", requires_grad=True)
    tried("attention", lambda: attend(heads, heads.bfloat16(), heads))
    attend(heads.bfloat16(), heads.bfloat16(), heads.bfloat16(), is_causal=True)
    before, kernels = gpu.memory.now, gpu.kernels
    held = torch.ones(2**20, device="cuda").mul(2).t().view(2, -1)
    found["held"], found["kernels"] = gpu.memory.now - before, gpu.kernels - kernels
    del held
    found["freed"] = gpu.memory.now == before and gpu.memory.peak >= before + 2 * 2**22
    ids = torch.tensor([3, 0, 5]).to("cuda")
    found["values"] = [int((ids > 0).sum()), ids[ids > 0].tolist()]
    found["waits"] = sum(gpu.waits.values())
    found["chosen"] = dict(gpu.chosen)
"""
MEASURED = """
import dataclasses, json
from benchmarks.shapes.step import measure
from benchmarks.shapes.table import problems
step = measure("configs/calm7b-4bit.yaml", [], "RTX3090")
print(json.dumps({"problems": problems(step), **dataclasses.asdict(step)}))
"""


def in_its_own_process(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@on_a_cpu_build
def test_a_configuration_goes_through_a_step_at_its_real_shape():
    found = in_its_own_process(MEASURED)
    assert found["problems"] == []
    assert 12 * 10**9 < found["step"] < 13 * 10**9
    assert found["trained"] == 32 * 8 * (4096 + 3 * 4096)
    assert found["waits"] <= 1


@on_a_cpu_build
def test_what_does_not_go_together_on_a_gpu_fails_and_what_does_is_counted():
    found = in_its_own_process(PLANTED + "\nimport json\nprint(json.dumps(found))\n")
    assert "cpu" in found["devices"]
    assert "cuda" in found["devices"]
    assert found["types"].endswith("of torch.bfloat16 and torch.float32")
    assert "bfloat16" in found["attention"]
    assert (found["held"], found["kernels"], found["freed"]) == (
        4 * MIB,
        2,
        True,
    )  # of ones and twice ones, one is alive
    assert found["values"] == [2, [3, 5]]
    assert found["waits"] == 3  # a sum, the mask's true elements, the list
    assert found["chosen"] == {"flash": 1}


def test_every_configuration_for_cuda_has_a_shape_and_a_row_in_the_documents():
    bases = {load_config(path).model.base for path in for_cuda()}
    assert not bases - SHAPES.keys(), "add config.json's facts to benchmarks/shapes/bases.yaml"
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = {f"configs/{name}" for name in re.findall(r"^\| `(.*?)`", table, re.MULTILINE)}
    assert rows == set(for_cuda()), "python -m benchmarks.shapes --write"


def test_the_allocator_keeps_segments_splits_blocks_and_joins_neighbours():
    def reserved(*log):
        return Allocator().replay(list(log)) / MIB

    assert reserved((0, 512)) == 2  # a small segment
    assert reserved((0, 2 * MIB), (1, 19 * MIB)) == 20 + 20  # below 10 MiB a segment of 20, from there on its own, of 2
    assert reserved((0, 30 * MIB), (0, -30 * MIB), (1, 16 * MIB), (2, 14 * MIB)) == 30  # split
    holes = [(0, 16 * MIB), (1, 14 * MIB), (0, -16 * MIB), (1, -14 * MIB)]
    assert reserved((9, 30 * MIB), (9, -30 * MIB), *holes, (2, 30 * MIB)) == 30  # joined again
    assert reserved((9, 30 * MIB), (9, -30 * MIB), *holes[:3], (2, 17 * MIB)) == 30 + 18  # a hole that is too small


def test_each_promise_that_is_not_kept_is_named():
    good = Found(
        config="configs/calm7b.yaml", overrides=[], card="RTX3090", layout=Layout(1, 2048, False, None, "dense"),
        need=Need(7e9, 1e9, 8e9, 2e9), loading=7 * 10**9, step=16 * 10**9, answering=8 * 10**9, reserved=17 * 10**9,
        trained=8, kernels=3000, waits=1.0, allowed_waits=1.0, waits_by_place={"here": 2},
        attention={"memory-efficient": 64}, holders={}, in_fp32=True, seconds=9.0,
    )  # fmt: skip
    assert problems(good) == []
    for change, words in (
        ({"step": 17 * 10**9}, "planned"),
        ({"reserved": 21 * 10**9 + 1}, "less than a tenth of RTX3090"),
        ({"loading": 21 * 10**9 + 1}, "less than a tenth of RTX3090"),
        ({"answering": 21 * 10**9 + 1}, "less than a tenth of RTX3090"),
        ({"waits": 2.0}, "here"),
        ({"in_fp32": False}, "fp32"),
        ({"attention": {"math": 1}}, "slow"),
    ):
        (problem,) = problems(dataclasses.replace(good, **change))
        assert words in problem
