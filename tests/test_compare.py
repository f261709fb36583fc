"""Comparing runs: the same rows enforced, the right sign, files beside the first run."""

import dataclasses
import json
from pathlib import Path

import pytest
from made_up import answers
from rich.cells import cell_len

from eval.compare import compare, compare_runs, read_answered
from eval.predictions import Prediction, write_predictions
from sft.system.errors import UserError


def run(directory: Path, *predictions: Prediction) -> str:
    (directory / "eval").mkdir(parents=True)
    write_predictions(predictions, directory / "eval" / "predictions.jsonl")
    return str(directory)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    first = run(tmp_path / "実験A", *answers("base", 0), *answers("tuned", 1))
    return first, run(tmp_path / "B", *answers("base", 0), *answers("tuned", 3))


def test_the_second_minus_the_first_is_written_and_printed(
    runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    compare_runs(runs, None, 200)
    directory = Path(runs[0]) / "eval" / "compare-B"
    found = json.loads((directory / "comparison.json").read_text())
    means = [found["systems"][name]["groups"]["context"]["character_f1"]["mean"] for name in ("実験A", "B")]
    delta = found["differences"]["B"]["groups"]["context"]["character_f1"]
    assert delta["mean"] == pytest.approx(means[1] - means[0], abs=1e-5)
    assert delta["mean"] > 0
    assert found["sources"]["B"] == {"file": "predictions.jsonl", "system": "tuned"}
    assert "character F1" in (directory / "comparison.md").read_text()
    assert (directory / "comparison.html").read_text().startswith("<!DOCTYPE html>")
    *printed, last = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if "_qa" in line or "all" in line]
    assert len({cell_len(line) for line in lines}) == 1
    assert max(map(cell_len, printed)) <= 80
    assert last.startswith(f"{directory / 'comparison.md'}: ")


def test_comparing_twice_gives_the_same_bytes(runs: tuple[str, str], tmp_path: Path) -> None:
    for name in ("one", "two"):
        compare_runs(runs, tmp_path / name, 100)
    for file in ("comparison.json", "comparison.md", "comparison.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_system_can_be_named_and_names_stay_apart(runs: tuple[str, str]) -> None:
    found = read_answered([f"{runs[0]}:base", runs[0], f"{runs[1]}/eval/predictions.jsonl:base"])
    assert [answered.name for answered in found] == ["実験A:base", "実験A:tuned", "B:base"]
    assert {p.system for p in found[0].predictions} == {"base"}


def test_different_rows_are_refused_with_their_number(tmp_path: Path) -> None:
    one = answers("tuned")
    first = run(tmp_path / "A", *one)
    fewer = run(tmp_path / "B", *one[3:])
    with pytest.raises(UserError, match=r"A \(32 rows\) and B \(29 rows\) .* 3 are in one only, 0 have another text"):
        compare(read_answered([first, fewer]), 50, 0)
    changed = dataclasses.replace(one[0], example=dataclasses.replace(one[0].example, instruction="別の質問"))
    other = run(tmp_path / "C", changed, *one[1:])
    with pytest.raises(UserError, match="0 are in one only, 1 have another text under the same index"):
        compare(read_answered([first, other]), 50, 0)


def test_runs_of_one_name_in_two_places_stay_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path / place / "A", *answers("tuned", 1)) for place in ("x", "y")]
    assert [found.name for found in read_answered(runs)] == [f"{r}/eval/predictions.jsonl:tuned" for r in runs]
    compare_runs(runs, None, 50)
    (directory,) = (tmp_path / "x" / "A" / "eval").glob("compare-*")
    same = json.loads((directory / "comparison.json").read_text())["differences"].popitem()[1]["groups"]["context"]
    assert (same["character_f1"]["mean"], same["character_f1"]["p"]) == (0, 1)  # nothing differs


def test_a_systems_name_is_no_path(runs: tuple[str, str], tmp_path: Path) -> None:
    other = run(tmp_path / "C", *answers("../../x", 1))
    compare_runs([runs[0], f"{other}:../../x"], None, 50)
    assert len(list((tmp_path / "実験A" / "eval").glob("compare-*/comparison.json"))) == 1


def test_a_directory_that_cannot_be_written_is_one_clear_line(
    runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: not a directory that can be written to: File exists; choose another"):
        compare_runs(runs, tmp_path / "file", 50)

    def read_only(dir: Path) -> None:  # root could write whatever the mode
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(UserError, match="out: not a directory that can be written to: Read-only file system; choose"):
        compare_runs(runs, tmp_path / "out", 50)


def test_wrong_words_are_one_clear_line(runs: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give two runs or more"):
        compare_runs(runs[:1], None, 50)
    with pytest.raises(UserError, match="tuned is given twice"):
        read_answered([runs[0], runs[0]])
    with pytest.raises(UserError, match="no answers of system 'x'; it has base, tuned"):
        read_answered([f"{runs[0]}:x", runs[1]])
    with pytest.raises(UserError, match="no predictions there"):
        read_answered([str(tmp_path / "absent"), runs[1]])


def test_comparisons_with_runs_of_one_name_go_to_different_places(tmp_path: Path) -> None:
    first = run(tmp_path / "A", *answers("base", 0), *answers("tuned", 1))
    others = [run(tmp_path / place, *answers("tuned", 2)) for place in ("B", "p/B", "q/B", "p/q/B", "B+C", "C")]
    write_predictions(answers("tuned", 2), tmp_path / "B.jsonl")
    calls = [[other] for other in others] + [[others[0], others[-1]], [f"{first}:base"], [str(tmp_path / "B.jsonl")]]
    for words in calls:
        compare_runs([first, *words], None, 20)
    found = sorted(path.name for path in (tmp_path / "A" / "eval").glob("compare-*"))
    assert len(found) == len(calls)
    assert {"compare-B", "compare-C", "compare-B+C"} < set(found)
    compare_runs([first, others[1]], None, 20)
    assert sorted(path.name for path in (tmp_path / "A" / "eval").glob("compare-*")) == found


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, *answers("tuned", 2)) for name in ("A", "長" * 84))
    compare_runs([first, second], None, 20)
    assert len(list((tmp_path / "A" / "eval").glob("compare-*/comparison.json"))) == 1
