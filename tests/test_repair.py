"""Tokenizers after their repair: SentencePiece's own ids, newlines and rare characters there and back, for good."""

import random

import odd_texts
import pytest
import sentencepiece
import small_models
import torch
from transformers import AutoTokenizer, GPTNeoXTokenizer

from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.generation.streamer import CharacterStreamer
from sft.model.families import repaired
from sft.model.load import load_tokenizer
from sft.model.repair import with_newlines
from sft.prompt.encode import bos_ids, encode_answer, encode_prompt, encode_text
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.system.errors import UserError

TEXTS = [
    "日本の首都は東京です。", "😀鱻", "  吾輩は  猫である   ", "ＡＢＣ ｱｲｳ ｶﾞｷﾞ", "か\u3099 é è", "①㈱﨑髙", "", " ",
    "\ttab", "</s><s>[PAD]", "[MASK]を", "Tokyo, 2024.",
]  # fmt: skip


def mixtures(count):
    """Random strings of Japanese, half and full width, symbols, emoji and many spaces."""
    ranges = [(0x21, 0x7F), (0xA1, 0x180), (0x2000, 0x2070), (0x2460, 0x2500), (0x3000, 0x3100), (0x3200, 0x3400)]
    ranges += [(0x4E00, 0x5200), (0xF900, 0xFA6E), (0xFF00, 0xFFEF), (0x1F600, 0x1F640)]
    characters = [chr(code) for start, end in ranges for code in range(start, end)] + [" "] * 1500
    draw = random.Random(0)
    return ["".join(draw.choices(characters, k=10)) for _ in range(count)]


@pytest.fixture(scope="module", params=["rinna", "newline piece", "space in front"])
def t5(request, tmp_path_factory):
    """SentencePiece under T5's name as rinna's repository has it, and two other ways to train it; with the model."""
    directory = tmp_path_factory.mktemp("t5")
    options = {
        "rinna": {},
        "newline piece": {"user_defined_symbols": ["<NL>"], "control_symbols": ["[MASK]"]},
        "space in front": {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
    }
    small_models.sentencepiece_as_t5(directory, **options[request.param])
    small_models.write_json(directory / "config.json", {"model_type": "gpt_neox"})
    return directory, sentencepiece.SentencePieceProcessor(model_file=str(directory / "spiece.model"))


def test_a_t5_tokenizer_gives_sentencepieces_ids_and_no_end_of_text(t5):
    directory, reference = t5
    tokenizer = load_tokenizer(str(directory))
    examples = examples_of(load_data("data/sample.jsonl").rows)
    sample = [text for e in examples for text in (e.instruction, e.input, e.output)]
    for text in [*TEXTS, *sample, *mixtures(1500)]:
        ids = encode_text(tokenizer, text)
        assert ids == reference.encode(text.replace("\n", "<NL>")), text
        assert tokenizer.decode(ids) == reference.decode(ids).replace("<NL>", "\n")
        assert encode_prompt(tokenizer, text) == ids
    assert tokenizer("東京")["input_ids"] == reference.encode("東京")
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 2, 3, 1500)


def test_what_the_repair_did_is_saved(t5, tmp_path):
    tokenizer = load_tokenizer(str(t5[0]))
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ["一行目\n二行目\n\n四行目", *TEXTS, *mixtures(50)]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])
    assert with_newlines(repaired(again)) is again
    assert again.special_tokens_map == tokenizer.special_tokens_map
    small_models.write_json(tmp_path / "config.json", {"model_type": "gpt_neox"})  # as beside merged weights
    assert AutoTokenizer.from_pretrained(tmp_path)("鱻\n")["input_ids"] == tokenizer("鱻\n")["input_ids"]


@pytest.mark.parametrize("text", ["一行目\n二行目\n\n四行目", "a\r\nb", "<N", "終わり\n", "終わり\n\n\n"])
def test_newlines_are_streamed_whole_where_they_are_several_tokens(t5, text):
    tokenizer = load_tokenizer(str(t5[0]))
    pieces = []
    streamer = CharacterStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[5]]))
    for token in encode_answer(tokenizer, text):
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == text.replace("\r\n", "\n").strip()


def test_a_newline_can_be_written_as_the_configuration_says(tiny_base, tmp_path):
    plain = load_tokenizer(str(tiny_base))
    tokenizer = load_tokenizer(str(tiny_base), newline="<br>")
    assert encode_text(tokenizer, "a\nb") == encode_text(plain, "a<br>b") != encode_text(plain, "a\nb")
    assert tokenizer.decode(encode_text(plain, "a<br>b")) == "a\nb"
    tokenizer.save_pretrained(tmp_path)
    assert encode_text(load_tokenizer(str(tmp_path)), "a\nb") == encode_text(plain, "a<br>b")


def test_newlines_that_cannot_be_written_are_refused(small_base, tmp_path):
    small_models.sentencepiece_as_t5(tmp_path / "t5", byte_fallback=False)
    small_models.write_json(tmp_path / "t5" / "config.json", {"model_type": "gpt_neox"})
    with pytest.raises(UserError, match=r"loses newlines, and characters of '<NL>', too; set it to"):
        load_tokenizer(str(tmp_path / "t5"))
    with pytest.raises(UserError, match=r"GPTNeoXJapaneseTokenizer has its own way with newlines"):
        load_tokenizer(small_base("abeja")["base"], newline="<NL>")


@pytest.mark.parametrize("family", ["llama-2", "gemma-3"])
def test_sentencepiece_bpe_gives_sentencepieces_ids(family, small_base):
    base = small_base(family)["base"]
    reference = sentencepiece.SentencePieceProcessor(model_file=f"{base}/tokenizer.model")
    tokenizer = load_tokenizer(base)
    for text in map(str.lstrip, [*TEXTS, *mixtures(300)]):  # transformers' Llama puts no space in front of a space
        assert encode_prompt(tokenizer, text) == [tokenizer.bos_token_id, *reference.encode(text)], text
        assert tokenizer.decode(encode_prompt(tokenizer, text), skip_special_tokens=True) == text


def test_llamas_tokenizer_gives_sentencepieces_ids_for_unigrams_and_its_chat_is_tokens(small_base, tmp_path):
    base = small_base("sarashina")["base"]
    reference = sentencepiece.SentencePieceProcessor(model_file=f"{base}/tokenizer.model")
    tokenizer, unrepaired = load_tokenizer(base), AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, *small_models.sample_texts(), *mixtures(300)]:
        ids = reference.encode(text)
        assert encode_prompt(tokenizer, text) == encode_prompt(saved, text) == ids, text
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert unrepaired.encode("日本の首都", add_special_tokens=False) != reference.encode("日本の首都")
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert tokenizer("<|user|>春</s>")["input_ids"] == [user, *reference.encode("春"), tokenizer.eos_token_id]
    assert user not in encode_text(tokenizer, "<|user|>春")


def test_llamas_unigrams_keep_a_bos_in_front_where_there_was_one(tmp_path):
    small_models.train_sentencepiece(tmp_path / "tokenizer.model", "unigram", **small_models.AS_WRITTEN)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "legacy": False}
    small_models.write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **special})
    small_models.write_json(tmp_path / "config.json", {"model_type": "llama"})
    tokenizer = load_tokenizer(str(tmp_path))
    assert bos_ids(tokenizer) == [tokenizer.bos_token_id] == [1]
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert encode_prompt(tokenizer, "東京です。") == [1, *reference.encode("東京です。")]


@pytest.mark.parametrize("family", small_models.BUILDERS)
def test_prompt_and_answer_apart_are_the_ids_of_both_together(family, small_base):
    """What the model continues in answering is what it saw in training, as if the row had been one text."""
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    prompt = "### 応答:\n"
    for answer in ("東京です。", "Tokyo.", "「鱻」と😀", "一行目\n二行目", "1. 春"):
        assert encode_prompt(tokenizer, prompt) + encode_answer(tokenizer, answer) == encode_prompt(
            tokenizer, prompt + answer
        )


@pytest.mark.parametrize("family", small_models.BUILDERS)
def test_special_token_text_in_data_is_data_to_every_tokenizer(family, small_base):
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    specials = tokenizer.all_special_tokens
    for text in ("".join(specials), "文の終わりは" + "と".join(specials * 2) + "。", *specials):
        ids = encode_answer(tokenizer, text)
        assert not set(ids) & set(tokenizer.all_special_ids), text
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("family", small_models.BUILDERS)
def test_a_row_of_special_token_texts_has_no_special_tokens_but_its_own(family, small_base):
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    own = "".join(tokenizer.all_special_tokens)
    encoder = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), 4096, train_on_inputs=False)
    for text in (own, odd_texts.TEXTS["end of text"], odd_texts.TEXTS["ends of other families"]):
        text = f"前{text}後{text}"
        row = {"index": "1", "instruction": text, "input": text, "output": text, "category": "closed_qa"}
        encoded = encoder.encode_row(row)
        prompt, answer = encoded.input_ids[: encoded.prompt_tokens], encoded.input_ids[encoded.prompt_tokens :]
        start = bos_ids(tokenizer)
        assert prompt[: len(start)] == start
        assert not set(prompt[len(start) :]) & set(tokenizer.all_special_ids), text
        assert not set(answer[:-1]) & set(tokenizer.all_special_ids), text
        assert answer[-1] == tokenizer.eos_token_id
        assert [label for label in encoded.labels if label != IGNORE_INDEX] == answer
        assert tokenizer.decode(answer[:-1], clean_up_tokenization_spaces=False) == text


def test_japanese_bytes_emoji_and_white_space_come_back(small_base, tmp_path):
    tokenizer = load_tokenizer(small_base("abeja")["base"])
    assert any("byte" in token for token in tokenizer.convert_ids_to_tokens(encode_text(tokenizer, "鱻")))
    for text in ("鱻を食べる😀", "\n一行目\n\n二行目\t終わり \n", "鱻鱻"):
        assert tokenizer.decode(encode_text(tokenizer, text)) == text
    assert tokenizer.decode(encode_text(tokenizer, "慶應")) == "慶応"  # its vocabulary has one id for both
    half = encode_text(tokenizer, "鱻")[:2]
    assert tokenizer.decode(half) == "\ufffd"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert type(AutoTokenizer.from_pretrained(tmp_path / "saved")).__module__.startswith("transformers.")


def test_a_repository_without_a_tokenizer_is_refused_not_taken_for_an_empty_one(small_base):
    with pytest.raises(UserError, match=r"has no vocabulary; set model.tokenizer to one .*EleutherAI/gpt-j-6B"):
        load_tokenizer(small_base("genji")["base"])


def test_other_tokenizers_stay_as_they_are(small_base):
    assert type(load_tokenizer(small_base("open-calm")["base"])) is GPTNeoXTokenizer
