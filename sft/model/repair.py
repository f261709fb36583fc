"""Tokenizers that lose newlines or rare characters, repaired once at loading: what is saved beside an adapter keeps it.

Four things go wrong with the pinned transformers. Its T5 class, which rinna's models name, knows nothing of
SentencePiece's byte fallback, adds a space in front and makes several spaces one. Its Llama class, which sarashina's
name, takes SentencePiece's unigrams for a BPE, so that nearly every text becomes other tokens than the model learned.
SentencePiece itself turns newlines into spaces. And the Python tokenizer of GPT-NeoX-Japanese decodes every byte by
itself.
"""

import itertools
import re
from collections.abc import Sequence, Set
from pathlib import Path

import transformers
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, decoders, normalizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, T5Tokenizer
from transformers.convert_slow_tokenizer import SentencePieceExtractor, SpmConverter
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from sft.system.errors import UserError

NEWLINE = "<NL>"
"""What a newline is written as where the tokenizer has none: the convention of rinna's instruction models."""

UNIGRAM, CONTROL = 1, 3
"""SentencePiece's numbers of a kind of model and of a type of piece."""


def with_newlines(tokenizer: PreTrainedTokenizerBase, newline: str | None = None) -> PreTrainedTokenizerBase:
    """`tokenizer`, or one that writes a newline as `newline` in tokens, and reads it back.

    None: NEWLINE where newlines would be lost, and nothing elsewhere. Raises UserError where a newline cannot be
    written as asked.
    """
    if newline is None and loses_newlines(tokenizer):
        newline = NEWLINE
    if newline is None:
        return tokenizer
    if not isinstance(tokenizer, TokenizersBackend):
        raise UserError(f"model.newline: {type(tokenizer).__name__} has its own way with newlines; leave it out")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    before = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\r\n?|\n"), newline), *before])
    backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), decoders.Replace(newline, "\n")])
    tokenizer = _rewrapped(tokenizer, backend, newline=newline)
    if loses_newlines(tokenizer):
        remedy = "set it to text that the tokenizer knows"
        raise UserError(f"model.newline: this tokenizer loses newlines, and characters of {newline!r}, too; {remedy}")
    return tokenizer


def loses_newlines(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a newline is not what comes back when it is encoded and decoded."""
    ids = tokenizer("あ\nあ", add_special_tokens=False)["input_ids"]
    return "\n" not in tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def with_sentencepiece_backend(tokenizer: T5Tokenizer) -> PreTrainedTokenizerBase:
    """`tokenizer` with a backend that is built again from its SentencePiece model, if that is beside it."""
    model = Path(getattr(tokenizer, "vocab_file", None) or "")
    return _rewrapped(tokenizer, sentencepiece_backend(model)) if model.is_file() else tokenizer


def with_unigrams(tokenizer: LlamaTokenizer) -> PreTrainedTokenizerBase:
    """`tokenizer` with a backend that is built again from the SentencePiece model beside it, if that is of unigrams.

    It puts a BOS in front where `tokenizer` did. What the model calls control pieces, a chat's among them, are special
    tokens from then on, so that their text inside data is text.
    """
    model = Path(getattr(tokenizer, "vocab_file", None) or "")
    if not model.is_file() or (proto := SentencePieceExtractor(str(model)).proto).trainer_spec.model_type != UNIGRAM:
        return tokenizer
    backend = sentencepiece_backend(model)
    backend.post_processor = tokenizer.backend_tokenizer.post_processor
    return _rewrapped(tokenizer, backend, {piece.piece for piece in proto.pieces if piece.type == CONTROL})


def with_whole_characters(tokenizer: transformers.GPTNeoXJapaneseTokenizer) -> PreTrainedTokenizerBase:
    """`tokenizer`, as an object of our class."""
    tokenizer.__class__ = GPTNeoXJapaneseTokenizer
    return tokenizer


def sentencepiece_backend(model: Path) -> Tokenizer:
    """SentencePiece's model as a backend that gives the ids of SentencePiece itself, which the tests compare."""
    proto = SentencePieceExtractor(str(model)).proto
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    backend = SpmConverter.build_tokenizer_from_spm_proto(proto, pieces)
    *steps, spaces = backend.normalizer
    specification = proto.normalizer_spec
    if SentencePieceProcessor(model_file=str(model)).normalize("か\u3099").endswith("が"):
        steps.append(normalizers.NFC())  # the backend's character map leaves half-width voiced kana in two
    if specification.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if specification.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.normalizer = normalizers.Sequence([*steps, spaces])
    return backend


def _rewrapped(
    tokenizer: TokenizersBackend, backend: Tokenizer, controls: Set[str] = frozenset(), **settings: str
) -> TokenizersBackend:
    """The tokenizer around another backend of the same vocabulary, of which `controls` are special tokens, too.

    Of the general class: the others build their backend anew when they are loaded, and the repair would be gone.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | controls
    kept = {token for token in special if backend.token_to_id(token) is not None}
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if token in kept}
    return TokenizersBackend(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        name_or_path=tokenizer.name_or_path,
        clean_up_tokenization_spaces=False,
        chat_template=tokenizer.chat_template,
        extra_special_tokens=sorted(kept - set(named.values())),
        **named,
        **settings,
    )


class GPTNeoXJapaneseTokenizer(transformers.GPTNeoXJapaneseTokenizer):
    """transformers' class, which it is saved as, with characters of several byte tokens put together in decoding."""

    BYTE = re.compile(r"<\|byte(\d+)\|>")

    def _convert_id_to_token(self, index: int) -> str:
        token = self.ids_to_tokens[index][0]
        return token if self.BYTE.fullmatch(token) else super()._convert_id_to_token(index)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens, white space around it included."""
        text = []
        for are_bytes, group in itertools.groupby(tokens, key=lambda token: bool(self.BYTE.fullmatch(token))):
            if are_bytes:
                text.append(bytes(int(token[6:-2]) for token in group).decode("utf-8", errors="replace"))
            else:
                text.extend(group)
        return "".join(text)
