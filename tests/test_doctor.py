"""The doctor's lines on tokenizers made for their faults, and the page of `--dry-run` with its exit status."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from made_up import on_disk
from rich.cells import cell_len
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sft.checks import doctor
from sft.checks.model_checks import model_lines, number_format, sources
from sft.data.records import CATEGORIES, Example
from sft.data.rows import select
from sft.model.load import load_skeleton
from sft.prompt.encode import encode_texts
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.template import ALPACA_JA

PROMPT = ALPACA_JA.render("質問", "文脈")
KNOWN = "前後\n東京は首都です。Ａｚ０９Az09　 ｶﾞｷ😀鱻𠮷カガキ"
END = 1


def by_character(normalizer=None, known: str = KNOWN, bos: bool = False, **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer with an id a character, `normalizer` in front, and what is not known `<unk>`."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", "<s>", "<pad>", *dict.fromkeys(known)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if normalizer:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    tokens = {"unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in tokens.items() if v})


@pytest.fixture(scope="module")
def without_end(tiny_base, tmp_path_factory) -> Path:
    """The tiny model with a tokenizer that has no end-of-text token."""
    directory = tmp_path_factory.mktemp("without") / "end"
    shutil.copytree(tiny_base, directory)
    by_character(eos_token="").save_pretrained(directory)
    return directory


def test_special_tokens_are_named_with_their_ids(tokenizer):
    line = doctor.special_tokens(tokenizer)
    assert line.level == "green"
    assert "EOS <|endoftext|> 0, PAD <|padding|> 1, UNK <|endoftext|> 0; BOS is not put before prompts" in line.found
    assert "BOS is put before prompts" in doctor.special_tokens(by_character(bos=True)).found


def test_a_missing_end_is_red_and_a_padding_that_is_the_end_is_not():
    line = doctor.special_tokens(by_character(eos_token=""))
    assert (line.level, "no EOS" in line.found, "model.tokenizer" in line.remedy) == ("red", True, True)
    line = doctor.special_tokens(by_character(pad_token="</s>"))
    assert (line.level, "masked by position" in line.found) == ("green", True)


@pytest.mark.parametrize(
    ("ended", "cut", "doubled", "level"),
    [(5, 0, 0, "green"), (99, 1, 0, "green"), (98, 2, 0, "yellow"), (0, 3, 0, "red"), (9, 0, 1, "yellow")],
)
def test_rows_that_do_not_teach_the_end_are_counted(ended, cut, doubled, level):
    rows = [[END, 5, END]] * ended + [[5, 6, 7]] * cut + [[5, END, END]] * doubled  # BOS may be EOS: never predicted
    line = doctor.end_of_text(rows, END)
    assert line.level == level
    assert f"{ended + doubled} of {ended + cut + doubled} training rows end in a supervised EOS" in line.found
    assert (f"{cut} cut off" in line.found) == bool(cut)
    assert (f"{doubled} supervise more than one" in line.found) == bool(doubled)


def test_an_unsupervised_end_teaches_nothing():
    line = doctor.end_of_text([[IGNORE_INDEX, 5, IGNORE_INDEX]], END)
    assert (line.level, line.found[:36]) == ("red", "0 of 1 training row ends in a superv")


def test_a_lost_newline_is_red_only_where_the_template_has_one():
    flat = by_character(normalizers.Replace("\n", " "))
    line = doctor.characters(flat, PROMPT)
    assert (line.level, "前⏎後 comes back as 前 後" in line.found) == ("red", True)
    assert doctor.characters(flat, "質問: 文脈 答え: ").level == "green"


def test_changed_characters_are_yellow_and_named():
    assert doctor.characters(by_character(), PROMPT).level == "green"
    line = doctor.characters(by_character(normalizers.NFKC()), PROMPT)
    assert line.level == "yellow"
    assert "full-width letters and digits (as 'Az09')" in line.found
    assert "half-width katakana (as 'ガギ')" not in line.found  # ギ is unknown here, and comes back as that
    assert "😀" not in line.found
    unknown = doctor.characters(by_character(known=KNOWN.replace("𠮷", "")), PROMPT)
    assert (unknown.level, "𠮷 (as '<unk>')" in unknown.found) == ("yellow", True)


def test_rows_that_change_are_counted_with_their_unknown_tokens_and_an_example():
    texts = ["東京", "", "は首都", "前", "Ａ", "後鬱鬱", "Ａ", "Ａ", "Ａ"]
    narrow = by_character(normalizers.NFKC())
    line = doctor.row_texts(narrow, texts, encode_texts(narrow, texts))
    assert line.level == "yellow"
    assert line.found.startswith("1 of 3 training rows come back from the tokenizer unchanged; 2 unknown tokens (UNK)")
    assert "for example …Ａ… as …A…" in line.found
    exact = by_character()
    assert doctor.row_texts(exact, texts[:3], encode_texts(exact, texts[:3])).level == "green"


def test_tokens_per_character_are_those_of_a_rows_texts():
    rows = [
        Example("1", "東京", "前後", "首都", "closed_qa"),
        Example("2", "東京は", "", "ガ", "open_qa"),
        Example("3", "", "", "", "社内"),
    ]
    shown = select(on_disk(rows), [2, 0, 1, 1])  # an epoch may show a row twice
    categories, texts = doctor.texts_of(shown)
    apart = by_character(normalizers.NFD())  # ガ falls into two, the second of them unknown
    shares = doctor.tokens_per_character(categories, texts, encode_texts(apart, texts))
    assert list(shares.by_category.items()) == [("open_qa", 5 / 4), ("closed_qa", 1.0), ("社内", None)]
    assert shares.all == 11 / 10
    assert doctor.efficiency(shares).level == "yellow"
    assert doctor.efficiency(doctor.Shares({}, 0.5)).level == "green"


def skeleton(tiny_base, tmp_path):
    """The tiny model where only its configuration is."""
    (tmp_path / "bare").mkdir()
    shutil.copy(tiny_base / "config.json", tmp_path / "bare")
    return load_skeleton(str(tmp_path / "bare"), torch.bfloat16)


@pytest.mark.parametrize(
    ("lora", "quantization", "longest", "largest", "expected"),
    [
        ({"r": 8, "target_modules": ["query_key_value"]}, None, 2048, 4095, {}),
        ({"r": 8, "target_modules": ["q_proj"]}, None, 9, 9, {"LoRA": "its linear layers are query_key_value"}),
        ({"r": 8}, {"load_in_8bit": True, "llm_int8_skip_modules": ["dense"]}, 9, 9, {"output layer": "skip_modules"}),
        ({"r": 8, "target_modules": ["lm_head"]}, None, 9, 9, {"output layer": "not a plain linear one"}),
        ({"r": 8}, None, 2049, 9, {"positions": "training.max_length=2048"}),
        ({"r": 8}, None, 9, 4096, {"vocabulary": "only 4,096 embeddings"}),
        (None, None, 9, 9, {}),
    ],
)
def test_what_does_not_fit_the_model_is_red(tiny_base, tmp_path, lora, quantization, longest, largest, expected):
    lines = model_lines(skeleton(tiny_base, tmp_path), lora, quantization, True, longest, largest)
    red = {line.subject: f"{line.found}; {line.remedy}" for line in lines if line.level == "red"}
    assert red.keys() == expected.keys()
    assert all(words in red[subject] for subject, words in expected.items())
    if lora is None:
        assert lines[0].found == "no adapter: all 1,445,376 weights are trained"
    elif not red:
        assert lines[0].found == "on 2 modules (query_key_value): 8,192 of 1,453,568 weights are trained"


def test_a_card_without_bfloat16_stops_a_configuration_that_asks_for_it():
    from sft.plan.cards import find_card

    assert number_format("bfloat16", find_card("T4"))[0].level == "red"
    assert number_format("auto", find_card("T4")) == number_format("bfloat16", find_card("a100-40gb")) == []


def test_unpinned_repositories_and_foreign_code_are_looked_at(tmp_path):
    (line,) = sources({"model": (str(tmp_path), None), "data": ("kunishou/dolly", "abc")}, False)
    assert (line.level, line.found) == ("green", "kunishou/dolly at abc")
    loose, code = sources({"model": ("a/b", None), "data": ("c/d", None)}, True)
    assert (loose.level, loose.remedy) == ("yellow", "set model.revision and data.revision to a commit")
    assert code.level == "yellow"


def overrides(base, run):
    return ["configs/tiny.yaml", f"model.base={base}", "model.build=null", f"run.directory={run}", "--dry-run"]


def test_a_clean_page_exits_with_0_and_is_aligned(program, tiny_base, without_end, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    words = ["--card", "RTX3090", "--compare", str(without_end)]
    result = program("train_sft", *overrides(tiny_base, tmp_path), *words)
    assert result.returncode == 0, result.stderr
    page = result.stdout[result.stdout.index(" doctor ") :]
    lines = page.splitlines()[1:]
    assert max(map(cell_len, lines)) <= 100
    entries = [line for line in lines if line.startswith(("ok ", "look", "STOP"))]
    assert len(entries) >= 11
    column = cell_len(entries[0][: entries[0].index("BOS")])
    for line in lines[: lines.index("")]:
        before = line[:column]  # subjects and marks are of narrow characters
        assert before.endswith("  ")
        assert not line[column].isspace()
    fits = r"fits RTX3090: about \d\.\d GB of GPU memory for bins of at most 4,096 tokens"
    assert re.search(fits, " ".join(page.split()))
    assert "an estimate, not measured on a GPU" in " ".join(page.split())
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in CATEGORIES}
    assert rows.keys() == set(CATEGORIES)
    assert all(float(ours) < float(by_character) == 1 for ours, by_character in rows.values())
    assert "0 STOP, 1 look (test)" in page  # of the sample, a tenth is too little to tell a difference


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["lora.target_modules=[q_proj]"], "STOP LoRA lora.target_modules: GPTNeoXForCausalLM has no module 'q_proj'"),
        (["data.truncation=end", "training.max_length=16"], "0 of 225 training rows end in a supervised EOS"),
        (
            ["--card", "1GB", "training.max_length=16384", "training.activation_checkpointing=false"],
            "STOP memory does not",
        ),
    ],
)
def test_what_would_waste_an_hour_exits_with_1(program, tiny_base, tmp_path, words, found):
    result = program("train_sft", *overrides(tiny_base, tmp_path / "run"), *words)
    text = " ".join(result.stdout.split())
    assert found in text
    assert result.returncode == 1, result.stderr
    assert not (tmp_path / "run").exists()


CUT = ["data.truncation=end", "training.max_length=200", "training.pack=false"]
PENALTY = ["generation.repetition_penalty=5.0", "generation.repetition_penalty_scope=all"]
LARGE = ["--card", "1GB", "training.max_length=16384", "training.activation_checkpointing=false"]
BAD = ["高さは？,3776メートル,"] * 2 + ["空は？,,", "日付は？,2024-01-05 00:00:00,", "文字は？,���,"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["停止 0件、要確認 1件（テスト）", "学習データ225件、34,313トークン"]),
        (["data.truncation=end", "training.max_length=16"], ["停止 終端トークン 学習データ225件中0件が"]),
        (CUT, ["要確認 警告 closed_qa:", "件の回答が途中で切れます"]),
        (PENALTY, ["繰り返しペナルティ5は強すぎます", "文脈の語をそのまま"]),
        (LARGE, ["停止 メモリ 1GBに収まりません"]),
        (["training.per_device_train_batch_size=225", "--card", "1GB"], ["設定より小さくしています"]),
        (["lora=null", "training.keep_best=overall", "--card", "RTX3090"], ["偶然に左右されます", "RTX3090で"]),
        (["data.path=BAD", "data.allow_dropped=1"], ["回答が空1件", "要確認 重複", "要確認 セル"]),
    ],
)
def test_the_page_is_japanese_but_for_errors(program, tiny_base, tmp_path, monkeypatch, words, found):
    """No line has three words of English behind each other, as every sentence has."""
    monkeypatch.setenv("COLUMNS", "100")
    rows = ["質問,回答,補足情報", *BAD, *(f"問い{n}は？,答えは{n}です。," for n in range(40))]
    (tmp_path / "bad.csv").write_text("\n".join(rows), encoding="utf-8")
    words = [word.replace("BAD", str(tmp_path / "bad.csv")) for word in words]
    result = program("train_sft", *overrides(tiny_base, tmp_path / "run"), *words, "--lang", "ja")
    assert result.returncode in (0, 1), result.stderr
    page = result.stdout[result.stdout.index(" 事前診断 ") :]
    assert not [line for line in page.splitlines() if re.search("[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", line)]
    shown = "".join(result.stdout.split())
    assert not [words for words in found if "".join(words.split()) not in shown], shown


def test_without_an_end_of_text_token_the_page_says_so(program, without_end, tmp_path):
    result = program("train_sft", *overrides(without_end, tmp_path))
    assert result.returncode == 1, result.stderr
    assert "STOP special tokens BOS <s> 2, no EOS" in " ".join(result.stdout.split())


def test_without_the_models_configuration_the_rest_of_the_page_is_shown(program, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "base").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_base / name, tmp_path / "base")
    result = program("train_sft", *overrides(tmp_path / "base", tmp_path / "run"))
    text = "".join(result.stdout.split())
    assert result.returncode == 1, result.stderr
    assert f"STOPmodel{tmp_path / 'base'}:cannotbeloaded" in text
    assert "225of225trainingrowscomebackfromthetokenizerunchanged" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.tokenizer=nobody/nothing"], "tokenizer nobody/nothing: cannot be loaded"),
        (["--compare", "nobody/nothing"], "tokenizer nobody/nothing: cannot be loaded"),
        (["--card", "3090Ti"], "--card 3090Ti: unknown; give its size, such as 24GB, or one of T4"),
    ],
)
def test_what_the_user_got_wrong_stays_one_line_and_exit_2(program, tiny_base, tmp_path, words, message):
    result = program("train_sft", *overrides(tiny_base, tmp_path), *words)
    assert (result.returncode, message in result.stderr) == (2, True), result.stderr


def test_cards_and_other_tokenizers_belong_to_a_dry_run(program):
    result = program("train_sft", "configs/tiny.yaml", "--card", "24GB")
    assert (result.returncode, "belong to --dry-run" in result.stderr) == (2, True)


UNWRITABLE = ['prompt.template={with_input: "{instruction}{input}", without_input: "{instruction}"}']


def test_what_could_not_be_exported_is_said_before_training(program, tiny_base, tmp_path):
    def page(*words):
        result = program("train_sft", *overrides(tiny_base, tmp_path), *words)
        assert result.returncode == 0, result.stderr
        return " ".join(result.stdout.split())

    assert "ok export as a chat template the prompt gives the training's tokens (100 training rows)" in page()
    assert "look export the run could not be exported for other programs: prompt.template (custom)" in page(*UNWRITABLE)
    words = [
        *overrides(tiny_base, tmp_path / "run")[:-1],
        *UNWRITABLE,
        "data.train_rows=16",
        "training.eval_strategy=no",
    ]
    result = program("train_sft", *words)
    assert (result.returncode, result.stderr.count("could not be exported for other programs")) == (0, 1)


def test_a_warning_stands_on_the_page_once(program, tiny_base, tmp_path):
    words = ["generation.repetition_penalty=5.0"]
    result = program("train_sft", *overrides(tiny_base, tmp_path), *words)
    assert (result.stdout + result.stderr).count("makes answers") == 1
    assert result.returncode == 0
