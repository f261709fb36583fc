"""The fast tests with every Python that is found, one after another, each in an environment of its own.

python3 tests/pythons.py [pytest's arguments]      PYTHONS="python3.12 /opt/python/bin/python3.13" names others

Found are those on the PATH and in pyenv's and uv's directories, the newest of each of 3.11 to 3.14. An environment
takes about 2 GB where PyTorch is built for CPUs, 6 GB where it brings CUDA, and is deleted before the next is made.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINORS = range(11, 15)
PLACES = (
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "/usr/bin",
    "/usr/local/bin",
    "/opt/python/*/bin",
)
TESTS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "no:cacheprovider")


def found() -> dict[tuple[int, ...], str]:
    """Interpreters by version, the newest of each minor one."""
    names = [f"python3.{minor}" for minor in MINORS]
    here = [path for name in names if (path := shutil.which(name))]
    for place in PLACES:
        pattern = Path(place).expanduser()
        here += [str(path) for name in names for path in Path("/").glob(str(pattern / name)[1:])]
    newest: dict[int, tuple[tuple[int, ...], str]] = {}
    for path in os.environ.get("PYTHONS", "").split() or here:
        code = "import sys, venv, ensurepip; print(*sys.version_info[:3])"
        result = subprocess.run([path, "-c", code], capture_output=True, text=True)
        version = tuple(map(int, result.stdout.split())) if result.returncode == 0 else (0, 0, 0)
        if version[:1] == (3,) and version[1] in MINORS:
            newest[version[1]] = max(newest.get(version[1], (version, path)), (version, path))
    return dict(newest[minor] for minor in sorted(newest))


def tested(python: str, version: tuple[int, ...], words: list[str]) -> str:
    """Make the environment, run the tests in it, delete it; returns what came out."""
    directory = ROOT / "scratch" / f"python-3.{version[1]}"
    try:
        if subprocess.run(["sh", "make_venv.sh", directory, python], cwd=ROOT).returncode:
            return "cannot be set up"
        command = [directory / "bin" / "python", "-m", "pytest", *TESTS, *words]
        run = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        print(run.stdout, flush=True)
        summary = re.findall(r"^=*\s*((?:\d+ \w+,? ?)+ in [\d.]+s.*?)\s*=*$", run.stdout, re.MULTILINE)
        return summary[-1] if summary else f"pytest ended with {run.returncode}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Print a line for each Python; exits with 1 where one fails."""
    lines = []
    for version, python in found().items():
        started = time.monotonic()
        lines.append((version, python, tested(python, version, sys.argv[1:]), time.monotonic() - started))
    for version, python, result, seconds in lines:
        print(f"{'.'.join(map(str, version)):8}  {result:50}  {seconds:5.0f} s  {python}")
    absent = [f"3.{minor}" for minor in MINORS if minor not in {version[1] for version, *_ in lines}]
    if absent:
        print(f"not found, so not tried: {', '.join(absent)}")
    sys.exit(any("failed" in result or "passed" not in result for _, _, result, _ in lines) or not lines)


if __name__ == "__main__":
    main()
