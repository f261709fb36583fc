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


def changed(answer: Prediction, **fields: str) -> Prediction:
    """The answer to a row that was changed."""
    return dataclasses.replace(answer, example=dataclasses.replace(answer.example, **fields))


def test_runs_on_different_rows_are_compared_over_those_that_both_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [changed(answer, instruction=f"問{at}") for at, answer in enumerate(answers("tuned"))]
    first = run(tmp_path / "A", *one)
    other = run(tmp_path / "B", changed(one[3], instruction="直した質問"), *one[4:])  # rows are gone, one was corrected
    found = compare(read_answered([first, other]), 50, 0)
    assert found.rows.total == 28
    assert found.alone == {"A": 4, "B": 1}
    assert found.answers["A"] == found.answers["B"]
    same = compare(read_answered([run(tmp_path / "C", *one[4:]), other]), 50, 0)
    assert same.systems["C"] == found.systems["A"]
    compare_runs([first, other], None, 50)
    words = "28 rows answered by both; left out, because not both answered them: 4 of A, 1 of B"
    assert words in " ".join(capsys.readouterr().out.split())
    assert words in (tmp_path / "A" / "eval" / "compare-B" / "comparison.md").read_text()
    third = run(tmp_path / "D", *one[:-2])
    assert compare(read_answered([first, other, third]), 50, 0).alone == {
        "A": 6,
        "B": 3,
        "D": 4,
    }


def test_a_row_is_known_by_its_texts_whatever_id_and_category_it_has_now(tmp_path: Path) -> None:
    one = [changed(answer, instruction=f"問{at}") for at, answer in enumerate(answers("tuned"))]
    two = [changed(answer, index=f"{at:012x}", category="社内") for at, answer in enumerate(one)]
    twice = [one[0], changed(one[0], index="a"), changed(one[0], index="b")]  # the same texts three times
    runs = [run(tmp_path / "A", *one, *twice[1:]), run(tmp_path / "B", *reversed(two), changed(twice[1], index="c"))]
    found = compare(read_answered(runs), 50, 0)
    assert (found.rows.total, found.alone) == (33, {"A": 1, "B": 0})
    assert next(iter(found.rows.categories)) == "open_qa"  # the first run's names
    assert found.differences["B"].groups["open"]["character_f1"].mean == 0


def test_runs_without_a_common_row_are_one_clear_line(tmp_path: Path) -> None:
    first = run(tmp_path / "A", *answers("tuned"))
    other = run(tmp_path / "B", *(changed(answer, instruction="別の質問") for answer in answers("tuned")))
    with pytest.raises(UserError, match=r"A \(32 rows\) and B \(32 rows\) have no row in common .* eval.data=FILE"):
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


@pytest.mark.slow
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
