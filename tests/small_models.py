"""Small random models, one a family with a configuration: its architecture, its tokenizer's class and special tokens.

The vocabularies are trained on the project's sample. Directories look as the repositories do: the same files, and no
tokenizer where there is none.
"""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import torch
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXJapaneseConfig,
    GPTNeoXJapaneseForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from trl import chat_template_utils

SAMPLE = Path(__file__).parents[1] / "data" / "sample.jsonl"
END = "<|endoftext|>"
VOCABULARY = 1500
AS_WRITTEN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
SPREAD = {"initializer_range": 0.1}  # wide enough for answers to depend on their prompts


def build(family: str, directory: Path) -> dict[str, str]:
    """Make the family's model in `directory`; returns what section `model` of a configuration says about it."""
    directory.mkdir()
    torch.manual_seed(0)
    return BUILDERS[family](directory)


def open_calm(directory: Path) -> dict[str, str]:
    """GPT-NeoX, byte-level BPE, one token for BOS, EOS and UNK, padding of its own, weights in a pickle."""
    size = byte_level_bpe(directory, "GPTNeoXTokenizer", [END, "<|padding|>"], pad_token="<|padding|>")
    model = gpt_neox(size, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    save(model, directory, weights="pytorch_model.bin")
    return {"base": str(directory)}


def rinna(directory: Path) -> dict[str, str]:
    """GPT-NeoX, SentencePiece unigrams with byte fallback under the name of T5's tokenizer, and no newline."""
    sentencepiece_as_t5(directory)
    save(gpt_neox(VOCABULARY, bos_token_id=2, eos_token_id=3, pad_token_id=0), directory)
    return {"base": str(directory)}


def abeja(directory: Path) -> dict[str, str]:
    """GPT-NeoX-Japanese and its Python tokenizer: vocab.txt and emoji.json, padding is the end of text."""
    size = japanese_vocabulary(directory)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "GPTNeoXJapaneseTokenizer"})
    config = GPTNeoXJapaneseConfig(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_multiple_size=4,
        max_position_embeddings=2048, bos_token_id=size - 1, eos_token_id=size - 1, **SPREAD,
    )  # fmt: skip
    save(GPTNeoXJapaneseForCausalLM(config), directory)
    return {"base": str(directory)}


def genji(directory: Path) -> dict[str, str]:
    """GPT-J without a tokenizer; the one it was trained with is in another repository and knows no padding."""
    elsewhere = directory.parent / f"{directory.name}-tokenizer"
    elsewhere.mkdir()
    size = byte_level_bpe(elsewhere, "GPT2Tokenizer", [END])
    config = GPTJConfig(
        vocab_size=size + 143, n_positions=2048, n_embd=64, n_layer=2, n_head=4, rotary_dim=8, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=False, **SPREAD,
    )  # fmt: skip
    save(GPTJForCausalLM(config), directory, weights="pytorch_model.bin")
    return {"base": str(directory), "tokenizer": str(elsewhere)}


def llama2(directory: Path) -> dict[str, str]:
    """Llama 2 and ELYZA: SentencePiece BPE with byte fallback and a space put in front, BOS added, no padding."""
    train_sentencepiece(directory / "tokenizer.model", "bpe", **AS_WRITTEN)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "legacy": False}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **special})
    save(llama(VOCABULARY, bos_token_id=1, eos_token_id=2), directory)
    return {"base": str(directory)}


def calm2(directory: Path) -> dict[str, str]:
    """Llama with a tokenizer of GPT-NeoX's class."""
    size = byte_level_bpe(directory, "GPTNeoXTokenizer", [END, "<|padding|>"], pad_token="<|padding|>")
    save(llama(size, bos_token_id=0, eos_token_id=0, pad_token_id=1), directory)
    return {"base": str(directory)}


def llama3(directory: Path) -> dict[str, str]:
    """Llama 3.1 and Swallow: byte-level BPE, BOS added, no padding, shared keys, scaled rotary embeddings."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    named = {"bos_token": begin, "eos_token": end, "unk_token": None}
    size = byte_level_bpe(directory, "PreTrainedTokenizerFast", [begin, end], **named)
    backend = Tokenizer.from_file(str(directory / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    backend.save(str(directory / "tokenizer.json"))
    scaled = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }  # fmt: skip
    save(llama(size, num_key_value_heads=2, rope_parameters=scaled, bos_token_id=0, eos_token_id=1), directory)
    return {"base": str(directory)}


def sarashina(directory: Path) -> dict[str, str]:
    """Llama with SentencePiece unigrams under the name of Llama's tokenizer, no BOS, and pieces that a chat is of."""
    chat = ["<pad>", "<|user|>", "<|assistant|>"]
    train_sentencepiece(
        directory / "tokenizer.model", "unigram", add_dummy_prefix=False, control_symbols=chat, **AS_WRITTEN
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "legacy": False, **special},
    )
    save(llama(VOCABULARY, num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3), directory)
    return {"base": str(directory)}


def llm_jp(directory: Path) -> dict[str, str]:
    """Llama with unigrams in tokenizer.json: a normaliser puts the space in front, BOS added, padding of its own."""
    size = unigrams_in_tokenizer_json(directory, "<unk>", "<s>", "</s>", "<PAD|LLM-jp>")
    save(llama(size, bos_token_id=1, eos_token_id=2), directory)
    return {"base": str(directory)}


def llm_jp_4(directory: Path) -> dict[str, str]:
    """The same with names of its own, and a tokenizer in Python beside it that is not needed and not run."""
    size = unigrams_in_tokenizer_json(directory, "<|unk|>", "<|startoftext|>", "<|return|>", END)
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    code = "llmjp4_tokenizer.Llmjp4Tokenizer"
    config |= {"tokenizer_class": "PreTrainedTokenizer", "auto_map": {"AutoTokenizer": [code, code]}}
    write_json(directory / "tokenizer_config.json", config)
    save(llama(size, num_key_value_heads=2, bos_token_id=1, eos_token_id=2), directory)
    return {"base": str(directory)}


def gemma3(directory: Path) -> dict[str, str]:
    """Gemma 3: SentencePiece BPE, BOS added, sliding and full attention, embeddings tied to the head."""
    gemma_tokenizer(directory)
    save(Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA3_TEXT)), directory)
    return {"base": str(directory)}


def gemma3_4b(directory: Path) -> dict[str, str]:
    """Gemma 3 from 4b on: the same, inside a model of text and images."""
    gemma_tokenizer(directory)
    images = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 56, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=GEMMA3_TEXT, vision_config=images, mm_tokens_per_image=4)
    save(Gemma3ForConditionalGeneration(config), directory)
    return {"base": str(directory)}


def qwen2(directory: Path) -> dict[str, str]:
    """Qwen 2.5's instruction models: byte-level BPE, no BOS, a turn's end is the EOS, padding of its own."""
    special = [END, "<|im_start|>", "<|im_end|>"]
    named = {"bos_token": None, "eos_token": "<|im_end|>", "unk_token": None, "pad_token": END}
    size = byte_level_bpe(directory, "Qwen2Tokenizer", special, **named)
    config = Qwen2Config(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=2048, tie_word_embeddings=False, eos_token_id=2, pad_token_id=0,
        **SPREAD,
    )  # fmt: skip
    save(Qwen2ForCausalLM(config), directory)
    return {"base": str(directory)}


def qwen3(directory: Path) -> dict[str, str]:
    """Qwen 3's base models: no BOS, one token for EOS and padding, queries and keys normalised, the head tied."""
    named = {"bos_token": None, "unk_token": None, "pad_token": END}
    size = byte_level_bpe(directory, "Qwen2Tokenizer", [END, "<|im_start|>", "<|im_end|>"], **named)
    config = Qwen3Config(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        intermediate_size=128, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        **SPREAD,
    )  # fmt: skip
    save(Qwen3ForCausalLM(config), directory)
    return {"base": str(directory)}


BUILDERS: dict[str, Callable[[Path], dict[str, str]]] = {
    "open-calm": open_calm,
    "rinna": rinna,
    "abeja": abeja,
    "genji": genji,
    "llama-2": llama2,
    "calm2": calm2,
    "llm-jp": llm_jp,
    "gemma-3": gemma3,
    "qwen2.5": qwen2,
    "llama-3.1": llama3,
    "sarashina": sarashina,
    "llm-jp-4": llm_jp_4,
    "gemma-3-4b": gemma3_4b,
    "qwen3": qwen3,
}
GEMMA3_TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 2048, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": 2, **SPREAD,
}  # fmt: skip
HEADS = 4
"""Attention heads of GPT-NeoX and Llama, whose hidden size is 64."""


def gpt_neox(vocabulary: int, **special: int) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary, hidden_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
            intermediate_size=128,
            max_position_embeddings=2048, rotary_pct=1.0, use_parallel_residual=False, tie_word_embeddings=False,
            **SPREAD, **special,
        )
    )  # fmt: skip


def llama(vocabulary: int, **settings: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
            intermediate_size=128,
            max_position_embeddings=2048, tie_word_embeddings=False, **SPREAD, **settings,
        )
    )  # fmt: skip


def save(model: PreTrainedModel, directory: Path, weights: str = "model.safetensors") -> None:
    """Write config.json and the weights, with a pickle's name as the pickle that older repositories hold."""
    model.save_pretrained(directory)
    if weights.endswith(".bin"):
        (directory / "model.safetensors").unlink()
        torch.save(model.state_dict(), directory / weights)


def sample_texts() -> list[str]:
    """All texts of the sample."""
    return [text for line in SAMPLE.open(encoding="utf-8") for text in json.loads(line).values() if text]


def byte_level_bpe(directory: Path, tokenizer_class: str, special: list[str], **named: str | None) -> int:
    """A byte-level BPE as tokenizer.json, `special` its first ids, and the tokenizer's size."""
    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(sample_texts(), VOCABULARY, special_tokens=special, show_progress=False)
    bpe.save(str(directory / "tokenizer.json"))
    names = {"bos_token": END, "eos_token": END, "unk_token": END, **named}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": tokenizer_class, **names})
    return bpe.get_vocab_size()


def sentencepiece_as_t5(directory: Path, **options: object) -> None:
    """rinna's tokenizer files: unigrams with its ids, that keep spaces and put none in front, named as T5's."""
    directory.mkdir(exist_ok=True)
    pieces = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    spaces = {"add_dummy_prefix": False, "remove_extra_whitespaces": False}
    train_sentencepiece(directory / "spiece.model", "unigram", **{**pieces, **spaces, **options})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]", "extra_ids": 0}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", **special})


def gemma_tokenizer(directory: Path) -> None:
    """Gemma's tokenizer files, with its ids of special tokens."""
    pieces = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
    train_sentencepiece(
        directory / "tokenizer.model", "bpe", add_dummy_prefix=False, user_defined_symbols=["<mask>"],
        **AS_WRITTEN, **pieces,
    )  # fmt: skip
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, **special}
    write_json(directory / "tokenizer_config.json", config)


def unigrams_in_tokenizer_json(directory: Path, unk: str, bos: str, eos: str, pad: str) -> int:
    """llm-jp's tokenizer files, and the tokenizer's size."""
    model = directory / "trained.model"
    train_sentencepiece(model, "unigram", unk_piece=unk, bos_piece=bos, eos_piece=eos, **AS_WRITTEN)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocabulary = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    model.unlink()
    backend = Tokenizer(models.Unigram([*vocabulary, (pad, 0.0)], 0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, unk_token=unk, pad_token=pad
    ).save_pretrained(directory)
    return len(vocabulary) + 1


def train_sentencepiece(path: Path, kind: str, **options: object) -> None:
    """A SentencePiece model with byte fallback, trained on the sample."""
    lines = (line for text in sample_texts() for line in text.split("\n") if line)
    trained = io.BytesIO()
    settings = {"vocab_size": VOCABULARY, "byte_fallback": True, "character_coverage": 0.99, **options}
    sentencepiece.SentencePieceTrainer.train(
        model_writer=trained, sentence_iterator=lines, model_type=kind, minloglevel=2, **settings
    )
    path.write_bytes(trained.getvalue())


def japanese_vocabulary(directory: Path) -> int:
    """vocab.txt and emoji.json in the format of Japanese-BPEEncoder_V2; returns the number of ids.

    Of the words at a place the one with the smallest id is taken, so longer ones come first. Spellings that share an
    id share a line.
    """
    texts = "\n".join(sample_texts())
    longer = Counter(texts[i : i + n] for n in (3, 2) for i in range(len(texts) - n))
    words = [word for word, _ in longer.most_common(600) if word.isalpha()]
    words.sort(key=lambda word: -len(word))
    characters = sorted({c for c in texts if c.isprintable()} - set(" ,　—−慶応應鱻"))
    marks = ["<SP>", "<BR>", "<TAB>", "<BLOCK>", "<KIGOU>", "<U2000U2BFF>", "<|emoji1|>"]
    raw = [f"<|byte{byte}|>" for byte in range(256)]
    lines = ["慶応,慶應", *words, *characters, ",", *marks, *raw, "<|startoftext|>", END]
    (directory / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_json(directory / "emoji.json", {"emoji": {"😀": "<|emoji1|>"}, "emoji_inv": {"<|emoji1|>": "😀"}})
    return len(lines)


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATS = {
    "qwen2_5": CHATML, "qwen3": CHATML, "qwen3_instruct_2507": CHATML,
    "gemma": ["<start_of_turn>", "<end_of_turn>"], "gemma3": ["<start_of_turn>", "<end_of_turn>"],
    "llama3": LLAMA3, "llama3_1": LLAMA3, "llama3_2": LLAMA3,
    "phi3": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
}  # fmt: skip
"""Chat models' templates, as TRL names them, and the special tokens that stand in them."""


def chat_tokenizer(chat: str, directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a chat model with its own template, the vocabulary apart."""
    directory.mkdir()
    if chat.startswith("gemma"):
        gemma_tokenizer(directory)
    elif chat.startswith("qwen"):
        named = {"bos_token": None, "eos_token": "<|im_end|>", "unk_token": None, "pad_token": END}
        byte_level_bpe(directory, "Qwen2Tokenizer", [END, *CHATML], **named)
    else:
        named = {"bos_token": "<|begin_of_text|>", "eos_token": END, "unk_token": None}
        byte_level_bpe(directory, "PreTrainedTokenizerFast", ["<|begin_of_text|>", END, *CHATS[chat]], **named)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": CHATS[chat]})
    tokenizer.chat_template = getattr(chat_template_utils, f"{chat}_chat_template")
    return tokenizer
