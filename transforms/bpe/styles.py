"""The styles of byte-level BPE tokenizers that can be trained, and the text that a tokenizer of each gives back.

* `gpt-neox`: NFKC, then the split of GPT-2 with a space before the first word. GPT-NeoX-20B has the same normalizer and
  split (S. Black et al., *GPT-NeoX-20B: An Open-Source Autoregressive Language Model*, 2022, section 3.2).
* `gpt-4`: no normalizer, and the split of GPT-4 (`cl100k` in https://github.com/openai/tiktoken), where up to three
  digits stand together. gigatoken knows it too, so that encoding is fast.
* `nanochat`: no normalizer, and that split but for digits, which stand alone or in pairs
  (https://github.com/karpathy/nanochat, nanochat/tokenizer.py, `SPLIT_PATTERN`).

All begin with all 256 bytes, so that every text has ids and comes back from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from transforms.encoding.splits import NANOCHAT_SPLIT, PROVEN_SPLITS
from transforms.errors import BroetchenError, UsageError

# The first nine are nanochat's, in its order.
SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
BOS_TOKEN = SPECIAL_TOKENS[0]
EOS_TOKEN = "<|eos|>"
PAD_TOKEN = "<|pad|>"

_BYTES = 256
_NFKC = normalizers.NFKC()


@dataclass(frozen=True)
class TokenizerStyle:
    """How a tokenizer is put together around its vocabulary.

    Attributes:
        name: on the command line and in manifests.
        nfkc: whether text is normalized to NFKC first, which cannot be undone.
        prefix_space: whether a text that does not begin with a space gets one.
        split: the regular expression of the pre-tokenizer; None for that of GPT-2, which is built in.
    """

    name: str
    nfkc: bool
    prefix_space: bool
    split: str | None

    def untrained(self) -> Tokenizer:
        """A tokenizer of this style without a vocabulary."""
        tokenizer = Tokenizer(models.BPE())
        if self.nfkc:
            tokenizer.normalizer = _NFKC
        tokenizer.decoder = decoders.ByteLevel()
        if self.split is None:
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=self.prefix_space)
            tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(self.split), behavior="isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=self.prefix_space, use_regex=False),
                ]
            )
        return tokenizer

    def given_back(self, text: str) -> str:
        """The text that encoding and decoding `text` must give: `text`, as far as the style leaves it as it is."""
        if self.nfkc:
            text = _NFKC.normalize_str(text)
        return f" {text}" if self.prefix_space and not text.startswith(" ") else text


STYLES = {
    style.name: style
    for style in (
        TokenizerStyle("gpt-neox", nfkc=True, prefix_space=True, split=None),
        TokenizerStyle("gpt-4", nfkc=False, prefix_space=False, split=PROVEN_SPLITS["cl100k"][0]),
        TokenizerStyle("nanochat", nfkc=False, prefix_space=False, split=NANOCHAT_SPLIT),
    )
}


def special_tokens(eos_token: str = EOS_TOKEN, more: Iterable[str] = ()) -> tuple[str, ...]:
    """The special tokens in the order of their ids, each once: nanochat's nine, EOS, those of one's own, and padding.

    Padding has a token of its own, since trainers leave it out of the loss: a model would not learn to write a token
    that serves as both.

    Raises:
        UsageError: one is empty, or EOS is that of padding.

    >>> special_tokens()[-2:]
    ('<|eos|>', '<|pad|>')
    >>> special_tokens("<|bos|>", ["<|pad|>", "<|more|>"])[-2:]
    ('<|pad|>', '<|more|>')
    """
    if eos_token == PAD_TOKEN:
        raise UsageError(
            f"--eos-token {PAD_TOKEN}: is for padding, which a training leaves out of the loss; name another token"
        )
    tokens = tuple(dict.fromkeys((*SPECIAL_TOKENS, eos_token, *more, PAD_TOKEN)))
    if not all(token.strip() for token in tokens):
        raise UsageError("a special token is empty or only spaces; name it like <|more|>")
    return tokens


def check_vocab_size(vocab_size: int, special: Sequence[str]) -> None:
    """Checks that a vocabulary has room for all bytes, the special tokens, and at least one merge.

    Raises:
        UsageError: it has not.
    """
    least = _BYTES + len(special) + 1
    if vocab_size < least:
        raise UsageError(
            f"--vocab-size {vocab_size}: too small; {_BYTES} bytes and {len(special)} special tokens come first, so "
            f"that {least} is the least and 32768 or 65536 is usual"
        )


def check_bytes(tokenizer: Tokenizer) -> None:
    """Checks that every byte has a token: text with any other byte would be lost without a word.

    Raises:
        BroetchenError: some have none.
    """
    missing = [
        character for character in pre_tokenizers.ByteLevel.alphabet() if tokenizer.token_to_id(character) is None
    ]
    if missing:
        raise BroetchenError(
            f"the vocabulary has no token for {len(missing)} of {_BYTES} bytes, so that text with them would be lost; "
            "train it with the whole byte alphabet"
        )


def check_round_trip(tokenizer: Tokenizer, style: TokenizerStyle, documents: Sequence[str], first: int = 0) -> int:
    """Encodes and decodes documents, and checks that each comes back; returns how many tokens they have.

    Strings of special tokens in a document are encoded as the text that they are.

    Args:
        first: the number of the first document, for the message.

    Raises:
        BroetchenError: one does not come back; the message says which, and where.
    """
    tokenizer.encode_special_tokens = True
    try:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(documents), add_special_tokens=False)]
        decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = False
    for number, (document, decoded_text) in enumerate(zip(documents, decoded, strict=True), start=first):
        expected = style.given_back(document)
        if decoded_text != expected:
            length = min(len(decoded_text), len(expected))
            at = next((i for i in range(length) if decoded_text[i] != expected[i]), length)
            raise BroetchenError(
                f"the tokenizer does not give back document {number} of the evaluation text: at character {at} "
                f"{decoded_text[at : at + 20]!r} came back for {expected[at : at + 20]!r}; nothing was written"
            )
    return sum(map(len, ids))


def merge_count(tokenizer: Tokenizer) -> int:
    """How many merges a BPE tokenizer has."""
    return len(json.loads(tokenizer.to_str())["model"]["merges"])
