"""`data.path` in all its forms: several files, directories, globs, weights; checked before anything is read."""

import json
from collections import Counter

import datasets
import pytest

from sft.config.load import data_section, load_config
from sft.data.files.sources import Source, files_of, is_local
from sft.data.read import load_data, raw_rows
from sft.data.split import HELD_ELSEWHERE
from sft.plan.prepare import read_rows
from sft.run.manifest import file_counts
from sft.system.errors import UserError
from sft.system.files import file_sha256

ROW = {"index": "1", "instruction": "首都は？", "output": "東京です。", "category": "open_qa"}


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_directories_and_globs_are_their_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.CSV", "c.json.gz", "readme.md", "~$a.xlsx", ".hidden.jsonl", "more/d.jsonl"):
        write(tmp_path / name, ROW)
    names = [path.path.removeprefix(f"{tmp_path}/") for path in files_of([Source(str(tmp_path), 2.0)])]
    assert names == ["a.CSV", "b.jsonl", "c.json.gz"]
    assert [source.weight for source in files_of([Source(str(tmp_path), 2.0)])] == [2.0] * 3
    found = files_of([Source(f"{tmp_path}/**/*.jsonl")])
    assert [path.path.removeprefix(f"{tmp_path}/") for path in found] == ["b.jsonl", "more/d.jsonl"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["*.parquet"], "this pattern has no data file"),
        ([""], "this directory has no data file"),
        (["rows.jsonl", "rows.jsonl"], "is named twice in section data; weight: 2 shows its rows twice"),
        (["rows.jsonl", "*.jsonl"], "is named twice in section data"),
        (["rows.jsonl", "absent.csv"], "no such data file"),
        (["rows.docx"], "not a data file"),
        (["rows.xls"], "save it as .xlsx"),
        (["rows.csv.zip"], "; unpack it"),
    ],
)
def test_what_is_no_file_is_one_line_before_any_row_is_read(tmp_path, names, words):
    folder = tmp_path / "data"
    write(folder / "rows.jsonl", ROW) if names != [""] else folder.mkdir()
    for name in ("rows.docx", "rows.xls", "rows.csv.zip"):
        (tmp_path / "data" / name).touch()
    with pytest.raises(UserError, match=words):
        files_of([Source(str(folder / name)) for name in names])


def test_what_is_not_read_of_a_directory_and_a_glob_is_named(tmp_path, capsys):
    folder = tmp_path / "data"
    for name in ("a.jsonl", "b.xls", "more/c.jsonl", "dataset_info.json", "~$d.xlsx"):
        write(folder / name, ROW)
    for path in (folder, folder / "*"):
        assert [source.path for source in files_of([Source(str(path))])] == [f"{folder}/a.jsonl"]
        assert capsys.readouterr().err == f"warning: {path}: not read: b.xls, more/\n"
    assert len(files_of([Source(f"{folder}/**")])) == 2
    with pytest.raises(UserError, match=f"no data file; for what lies deeper: {folder}/\\*.jsonl"):
        files_of([Source(str(tmp_path))])
    for side in ("test", "train"):
        write(tmp_path / "saved" / side / "rows.jsonl", ROW)
    with pytest.raises(UserError, match=r"for what lies deeper: .*/saved/train/"):
        files_of([Source(str(tmp_path / "saved"))])


def test_files_that_are_called_test_or_validation_are_named_where_they_are_trained_on(tmp_path, capsys):
    for name in ("train-0.jsonl", "test.jsonl", "validation_1.jsonl", "testimonials.jsonl"):
        write(tmp_path / name, ROW)
    files_of([Source(str(tmp_path))])
    assert f"{tmp_path}: test.jsonl, validation_1.jsonl trained on like the other files" in capsys.readouterr().err
    files_of([Source(str(tmp_path), side="test")])
    assert not capsys.readouterr().err


def test_what_save_to_disk_wrote_is_read(tmp_path):
    datasets.Dataset.from_list([ROW, ROW | {"output": "京都です。"}]).save_to_disk(str(tmp_path / "saved"))
    data = load_data(str(tmp_path / "saved"))
    assert data.rows["output"][:] == ["東京です。", "京都です。"]
    (tmp_path / "rows.arrow").write_bytes(b"ARROW1")
    with pytest.raises(UserError, match=r"rows\.arrow: not a file that save_to_disk wrote"):
        load_data(str(tmp_path / "rows.arrow"))


def test_a_file_stands_on_one_side(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROW)
    with pytest.raises(UserError, match=r"is named in data\.path and data\.validation; the rows of"):
        files_of([Source(path), Source(path, side="validation")])


@pytest.mark.parametrize("path", ["absent.txt", "data/faq.xls", "data/faq.cvs", "data/faq.jsnol", "faq.json.gz"])
def test_what_is_spelt_like_a_file_is_none_of_the_hubs(path):
    with pytest.raises(UserError, match="no such data file"):
        files_of([Source(path)])


@pytest.mark.parametrize("path", ["kunishou/databricks-dolly-15k-ja", "squad", "owner/data-v1.0", "owner/wiki.ja"])
def test_a_hub_id_is_no_file(path):
    assert not is_local(path)
    assert files_of([Source(path, revision="main")]) == [Source(path, revision="main")]


def test_rows_know_their_file_and_the_manifest_what_was_read_of_each(tmp_path):
    first = write(tmp_path / "a.jsonl", ROW, ROW | {"output": ""})
    second = write(tmp_path / "b.jsonl", {"質問": "休みは？", "回答": "月曜です。"})
    sources = [Source(first), Source(second, weight=2.0)]
    assert [(row["file"], row["place"]) for row in raw_rows(sources)] == [(0, "a.jsonl line 1"), (1, "b.jsonl row 1")]
    data = load_data(sources)
    assert [(file.rows, file.dropped, file.weight) for file in data.files] == [(1, 1, 1.0), (1, 0, 2.0)]
    counts = file_counts(data.files)
    assert [(count.name, count.sha256) for count in counts] == [
        ("a.jsonl", file_sha256(tmp_path / "a.jsonl")), ("b.jsonl", file_sha256(tmp_path / "b.jsonl")),
    ]  # fmt: skip
    assert data.drop_report() == ["dropped 1 row (open_qa): empty output: a.jsonl line 2"]


def test_a_file_without_a_usable_row_among_others_is_one_line(tmp_path):
    good, bad = write(tmp_path / "a.jsonl", ROW), write(tmp_path / "b.jsonl", {"a": "x", "b": "y"})
    with pytest.raises(UserError, match=r"b\.jsonl: no usable row .*columns: a, b"):
        load_data([Source(good), Source(bad)])


BASE = ["model.base=x", "training.total_batch_size=2"]


def config(tmp_path, *overrides):
    path = tmp_path / "run.yaml"
    path.write_text("data: {path: rows.jsonl}\n", encoding="utf-8")
    return load_config(path, [*BASE, *overrides])


def test_lists_of_files_become_sources_with_their_columns_and_revisions(tmp_path):
    data = config(
        tmp_path,
        "data.path=[a.jsonl, {path: b.csv, weight: 2, columns: {instruction: 件名}}, {path: c/d, revision: v1}]",
        "data.columns={output: 回答}", "data.revision=main",
    ).data  # fmt: skip
    assert data.sources == [
        Source("a.jsonl", 1.0, {"output": "回答"}, "main"),
        Source("b.csv", 2.0, {"instruction": "件名"}, "main"),
        Source("c/d", 1.0, {"output": "回答"}, "v1"),
    ]
    assert data.named == "a.jsonl, b.csv, c/d"


def test_a_configuration_of_several_files_is_given_back_by_its_own_yaml_and_holds_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = config(tmp_path, "data.path=[a.jsonl, {path: b.csv, weight: 2}, c/d]", "data.test=[t.csv]",
                   "data.leave_out=[copies]", "data.allow_dropped=0.3")  # fmt: skip
    (tmp_path / "again.yaml").write_text(found.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == found
    spelt = found.with_absolute_paths().data
    assert [source.path for source in spelt.sources] == [
        *(f"{tmp_path}/{name}" for name in ("a.jsonl", "b.csv")), "c/d", f"{tmp_path}/t.csv",
    ]  # fmt: skip
    assert spelt.test == [f"{tmp_path}/t.csv"]
    assert spelt.shares == (0.02, 0.0)


def question(number, name="質問"):
    return {"instruction": f"{name}{number}", "output": f"{name}の答え{number}"}


def test_files_of_their_own_test_and_validate_and_what_stands_in_them_trains_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", *[question(n) for n in range(50)])
    write(tmp_path / "test.jsonl", *[question(3) | {"output": "ほかの答え"}, question(1, "試験"), question(1, "両方")])
    write(tmp_path / "check.jsonl", *[question(4), question(1, "検証"), question(1, "両方")])
    held = ["data.test=test.jsonl", "data.validation=check.jsonl"]
    data, split = read_rows(config(tmp_path, "data.path=rows.jsonl", *held))
    assert sorted(split.test["instruction"]) == ["両方1", "試験1", "質問3"]
    assert sorted(split.validation["instruction"]) == ["検証1", "質問4"]
    assert set(split.train["instruction"]) == {f"質問{n}" for n in range(50)} - {"質問3", "質問4"}
    assert data.drop_counts == {(HELD_ELSEWHERE, ""): 3}


def test_a_files_weight_says_how_often_an_epoch_shows_its_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", *[question(n, "一") for n in range(10)])
    write(tmp_path / "b.jsonl", *[question(n, "二") for n in range(10)])
    path = "data.path=[{path: a.jsonl, weight: 2.5}, {path: b.jsonl, weight: 0.4}]"
    _, split = read_rows(config(tmp_path, path, "data.test_share=0", "data.validation_share=0"))
    shown = Counter(split.train["instruction"])
    assert sum(count for name, count in shown.items() if name.startswith("一")) == 25
    assert sum(count for name, count in shown.items() if name.startswith("二")) == 4
    assert set(shown.values()) == {1, 2, 3}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.path=[]", "data.path: an empty list; name at least one file"),
        ("data.path=''", "data.path: must not be empty"),
        ("data.path=[3]", "data.path: entry 1 is neither text nor a mapping"),
        ("data.path=[a, {weight: 2}]", "data.path: entry 2: path: Field required"),
        ("data.path=[{path: a, wieght: 2}]", "entry 1: wieght: unknown key; known: path, weight, columns, revision"),
        ("data.path=[{path: a, weight: 0}]", "entry 1: weight: Input should be greater than 0; leave out an entry"),
        (
            "data.path=[{path: a, columns: {answer: b}}]",
            "entry 1: columns: answer is no field of a row; did you mean answers",
        ),
        ("data.columns={instructoin: a}", "data.columns: instructoin is no field of a row; did you mean instruction?"),
        ("data.columns={instruction: a, output: a}", "instruction and output are both a; each field has a column"),
        ("data.columns={}", "data.columns: names no column"),
        ("data.columns={instruction: 3}", "data.columns.instruction: expected text or null, got 3"),
        ("data.leave_out=[copys]", "data.leave_out: expected a list, each one of copies, citations"),
        ("data.leave_out=copies", "data.leave_out: expected a list, each one of copies"),
        ("data.allow_dropped=2", "data.allow_dropped: must be at most 1, got 2"),
        ("data.test=rows.jsonl", "data.test: rows.jsonl is in data.path, too"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(tmp_path, override, words):
    with pytest.raises(UserError) as error:
        config(tmp_path, override)
    assert words in str(error.value)


def test_the_columns_of_a_file_are_those_of_its_entry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    for name in ("a.csv", "b.csv", "more/c.csv"):
        (tmp_path / name).write_text("件名,対応\na,b\n", encoding="utf-8")
    entries = "[{path: a.csv, columns: {output: 対応}}, gone.csv, {path: more, columns: {output: 件名}}, b.csv]"
    section = data_section([], [f"data.path={entries}", "data.columns={instruction: 件名}"])
    found = {name: section.columns_of(name) for name in ("./a.csv", str(tmp_path / "more" / "c.csv"), "b.csv", "x.csv")}
    assert [*found.values()] == [{"output": "対応"}, {"output": "件名"}, *[{"instruction": "件名"}] * 2]
