"""Installing: the wheel and its commands, extras, hashed requirements, and which Python an environment is made of."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from other_programs import output, python_with

from sft import __version__
from sft.config.library.packages import EXTRAS

ROOT = Path(__file__).parents[1]
REQUIREMENTS = {"": "requirements.txt"} | {name: f"requirements/{name}.txt" for name in (*EXTRAS, "trackers", "dev")}


def pins(path: str) -> dict[str, str]:
    """Package, as the index writes it, → version."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


def sources() -> list[str]:
    """The files of the checkout that are, or would be, in the repository."""
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built without a network from a copy of the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    for name in sources():
        (place / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / "copy" / name)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    output(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", place, "./copy", cwd=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Where the commands are, of the wheel installed beside the libraries, with the checkout not on the path."""
    return python_with(tmp_path_factory.mktemp("installed"), str(wheel)).parent


def test_the_wheel_holds_every_file_of_the_program_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith(f"calm_sft-{__version__}.dist-info/")}
    wanted = {name for name in sources() if name.startswith(("sft/", "eval/"))}
    assert held == wanted | {"train_sft.py", "infer.py"}


def test_the_wheel_asks_for_what_the_lists_of_requirements_say(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"calm_sft-{__version__}.dist-info/METADATA").decode()
    asked = re.findall(r'^Requires-Dist: ([\w.-]+)==(\S+?)(?:; extra == "(\w+)")?$', metadata, re.MULTILINE)
    assert len(asked) == metadata.count("\nRequires-Dist: ")
    for extra, path in REQUIREMENTS.items():
        wanted = pins(path) | (pins(REQUIREMENTS["web"]) | pins(REQUIREMENTS["judge"]) if extra == "dev" else {})
        assert {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin, of in asked if of == extra} == wanted
    assert re.search(r"^Requires-Python: <3\.15,>=3\.11$", metadata, re.MULTILINE)


def test_no_package_is_named_twice():
    names = [name for path in REQUIREMENTS.values() for name in pins(path)]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_the_installed_commands_work_in_another_directory(installed, tiny_base, tmp_path):
    def run(*words: object) -> str:
        return output(installed / words[0], *words[1:], cwd=tmp_path)

    for name in ("calm-train", "calm-infer", "calm-eval"):
        assert run(name, "--version") == f"calm-sft {__version__}\n"
        shown = run(name, "--help")
        assert f"    {name} " in shown
        assert not re.search(r"python (?:train_sft\.py|infer\.py|-m eval)|launch train_sft\.py", shown)
    assert str(ROOT) not in run("python", "-c", "import sft, train_sft; print(sft.__file__, train_sft.__file__)")
    words = [f"model.base={tiny_base}", "model.build=null", f"data.path={ROOT / 'data' / 'sample.jsonl'}"]
    words += ["data.train_rows=8", "training.total_batch_size=8", "training.num_train_epochs=1", "training.samples=0"]
    run(
        "python",
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "1",
        "-m",
        "train_sft",
        ROOT / "configs" / "tiny.yaml",
        *words,
    )
    manifest = json.loads((tmp_path / "runs" / "tiny" / "manifest.json").read_text())
    assert manifest["environment"]["packages"]["calm-sft"] == __version__
    assert "git_commit" not in manifest["environment"]
    few = ["generation.max_new_tokens=3"]
    assert run("calm-infer", "runs/tiny", "--instruction", "首都は?", *few).strip()
    run("calm-eval", "runs/tiny", *few, "eval.rows_per_category=1", "eval.resamples=20")
    assert (tmp_path / "runs" / "tiny" / "eval" / "report.html").is_file()
    assert (tmp_path / "runs" / "tiny" / "eval" / "rows.html").is_file()


def test_what_only_a_checkout_has_is_named_where_there_is_none(installed, tmp_path):
    words = ["-m", "sft.build_base", "tiny", "models/tiny"]
    result = subprocess.run([installed / "python", *words], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "which only a checkout has" in result.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("infer", "--web"), "web"),
        (("eval.__main__", "answer", "data/sample.jsonl", "--endpoint", "http://h", "--model", "m"), "judge"),
        (("eval.__main__", "judge", "runs/a", "--endpoint", "http://h", "--model", "m"), "judge"),
    ],
)
def test_a_missing_extra_is_one_line_that_says_how_to_get_it(program, monkeypatch, words, extra):
    find_spec = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == EXTRAS[extra] else find_spec(name))
    result = program(*words)
    assert (result.returncode, result.stdout) == (2, "")
    line = f"needs {EXTRAS[extra]}, which is not installed here: pip install -r requirements/{extra}.txt\n"
    assert re.fullmatch(rf"error: [^\n]+ {re.escape(line)}", result.stderr)
    assert EXTRAS[extra] in pins(f"requirements/{extra}.txt")


def test_an_installed_program_names_the_extra(installed, tmp_path):
    code = (
        "import importlib.util as util; util.find_spec = lambda name: None\n"
        "import sys, infer; sys.argv = ['infer', '--web']; infer.main()"
    )
    result = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    (pin,) = (f"{name}=={version}" for name, version in pins("requirements/web.txt").items())
    assert result.stderr.endswith(f"which is not installed here: pip install {pin}\n")


def test_the_hashed_requirements_are_the_others_with_all_that_they_need_and_no_address():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|^--(?!hash)|find-links|index-url", text, re.MULTILINE)
    entries = re.split(r"\n(?=\w)", text.strip())
    locked = {}
    for entry in entries:
        name, version = re.match(r"([a-z0-9.-]+)==([\w.+]+)", entry).groups()
        locked.setdefault(name, set()).add(version)
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
        assert hashes, name
        assert len(hashes) == entry.count("--hash"), name
    for path in REQUIREMENTS.values():
        for name, version in pins(path).items():
            assert locked[name] == {version}, f"{name}: make lock"
    assert len(locked) > 100


@pytest.mark.parametrize(("torch", "first"), [("cuda", None), ("cpu", "--index-url"), ("cu126", "--index-url")])
def test_the_container_installs_the_pinned_pytorch_for_what_it_is_built_for(tmp_path, torch, first):
    """No engine builds it here: its commands are run with a pip that writes down what it is asked."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    for words in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / word).exists() for word in words.split())
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "pip").chmod(0o755)
    runs = re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    asked = [
        subprocess.run(["sh", "-ec", run], cwd=ROOT, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH": torch},
                       capture_output=True, text=True, check=True).stdout
        for run in runs if "pip install" in run
    ]  # fmt: skip
    pin = f"torch=={pins('requirements.txt')['torch']}"
    assert asked[0].split()[2:] == ([first, f"https://download.pytorch.org/whl/{torch}", pin] if first else [])
    assert asked[1].split()[2:] == [
        "-r",
        "requirements.txt",
        "-r",
        "requirements/web.txt",
        "-r",
        "requirements/judge.txt",
    ]


FAKE = """#!/bin/sh
# A Python of this name: what it is asked goes into a file, and pip fails in the one that is to fail.
echo "{name} $*" >> "$ASKED"
case "$*" in
    --version) echo "Python {name}";;
    *"venv --clear"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python";;
    *"pip install"*) exit {pip};;
    -c*) echo {name};;
esac
"""


@pytest.fixture
def venv_of(tmp_path, monkeypatch):
    """Makes an environment with Pythons by name, each with the status of its pip; returns status and all output."""
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(there: dict[str, int], *pythons: str) -> tuple[int, str]:
        for name, pip in there.items():
            (tmp_path / name).write_text(FAKE.format(name=name, pip=pip))
            (tmp_path / name).chmod(0o755)
        words = ["sh", "make_venv.sh", tmp_path / "venv", *pythons]
        result = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return result.returncode, result.stdout

    return make


def installing(directory: Path) -> str:
    """What is said before the minutes that an installation takes."""
    first = "installing what it lacks of requirements.txt and requirements/: a new one takes minutes, in which pip"
    second = "on Linux, where PyTorch brings CUDA, some 3 GB are downloaded, and"
    return f"{first} prints nothing;\n{second} {directory} takes 6 GB\n"


def test_an_environment_is_made_of_the_newest_python_that_works(venv_of, tmp_path):
    status, said = venv_of({"python98": 0, "python97": 0}, "python99", "python98", "python97")
    made = f"{tmp_path}/venv: Python python98 ({tmp_path}/python98)\n"
    assert (status, said) == (0, made + installing(tmp_path / "venv"))
    asked = (tmp_path / "asked").read_text()
    assert "python97" not in asked
    wanted = " ".join(f"--requirement {REQUIREMENTS[name]}" for name in ("", "web", "judge", "dev"))
    assert f"python98 -m pip install --quiet --disable-pip-version-check {wanted}\n" in asked


def test_where_the_pins_cannot_be_installed_the_next_python_is_taken_and_it_is_said(venv_of):
    status, said = venv_of({"python98": 1, "python97": 0}, "python98", "python97")
    assert status == 0
    assert "\npython98: what is in requirements.txt cannot be installed with it\n" in said
    assert "venv: Python python97 (" in said.splitlines()[-3]


def test_without_a_python_that_works_it_says_what_to_do(venv_of):
    assert venv_of({}, "python99", "python98") == (
        1, "error: no Python from 3.11 to 3.14 that works; make setup PYTHON=/path/to/python3.12 names one\n",
    )  # fmt: skip
    status, said = venv_of({}, "python99")
    assert status == 1
    assert said.startswith("python99: is not there, is no Python from 3.11 to 3.14, or has no venv")


def test_a_python_that_is_named_is_looked_at_also_after_the_set_up(tmp_path):
    for name in ("requirements", "requirements.txt", "make_venv.sh"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".requirements-installed").touch()
    words = ["make", "--file", ROOT / "Makefile", "setup"]
    # A make that runs these tests hands on what it was told, the Python that it was named too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    there = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (there.returncode, "installing" in there.stdout + there.stderr) == (0, False)
    words.append("PYTHON=/nonexistent")
    named = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert named.returncode != 0
    assert "/nonexistent: is not there" in named.stderr


def test_an_environment_that_is_there_keeps_its_python_unless_another_is_named(venv_of, tmp_path):
    venv_of({"python97": 0}, "python97")
    status, said = venv_of({"python98": 0}, "python98", "python97")
    kept = "Python python97, as it is there\n"
    assert (status, said.partition(": ")[2]) == (0, kept + installing(tmp_path / "venv"))
    assert ": Python python97, as it is there" in venv_of({}, "python97")[1]
    assert ": Python python98 (" in venv_of({}, "python98")[1]


def test_the_places_that_name_the_pythons_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    assert "PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3\n" in (ROOT / "Makefile").read_text()
    assert "(3, 11) <= sys.version_info[:2] <= (3, 14)" in (ROOT / "make_venv.sh").read_text()
