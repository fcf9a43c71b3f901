"""Holds the tokenizer that lies beside a dataset against its manifest, and tells which ids no text can make."""

from __future__ import annotations

import contextlib
import functools
import json

from tokenizers import Tokenizer

from transforms.dataset.manifest import Manifest, tokenizer_of
from transforms.encoding.pool import tokenizer_file
from transforms.errors import BroetchenError
from transforms.tokenizer.file import load_tokenizer
from transforms.tokenizer.spec import TokenizerSpec


def tokenizer_problems(folder: str, manifest: Manifest) -> list[str]:
    """The fault of the tokenizer beside a dataset: it is gone, another one, or has other ids."""
    entry = manifest.tokenizer
    try:
        spec = tokenizer_of(folder, manifest)
        loaded = load_tokenizer(spec.path)  # As it lies there: this process may know one of this hash from elsewhere.
    except BroetchenError as error:
        return [f"{folder}: its tokenizer cannot be used: {error}"]
    if loaded.sha256 != entry.sha256:
        return [f"{spec.path}: sha256 {loaded.sha256}, not {entry.sha256}; it is not the tokenizer of {folder}"]
    problems = []
    if loaded.vocab_size != entry.vocab_size:
        problems.append(
            f"{folder}: its tokenizer has {loaded.vocab_size:,} ids, and the manifest says {entry.vocab_size:,}"
        )
    for name, token in (("BOS", entry.bos_id), ("EOS", entry.eos_id)):
        if token is not None and token >= loaded.vocab_size:
            problems.append(f"{folder}: {name} is {token:,}, and the vocabulary ends at {loaded.vocab_size:,}")
    return problems


def why_not_recounted(folder: str, manifest: Manifest) -> str | None:
    """Why the documents in shards of ids cannot be counted, or None where they can."""
    entry = manifest.tokenizer
    if not manifest.holds_ids:
        return None
    added = [token for token in (entry.bos_id, entry.eos_id) if token is not None]
    if not added:
        return "neither BOS nor EOS is added, which would tell where documents end"
    if entry.special_tokens == "token":
        return "a text may hold BOS or EOS itself, with special_tokens: token"
    with contextlib.suppress(BroetchenError):  # which `tokenizer_problems` tells
        if any(_text_makes(tokenizer_of(folder, manifest), token) for token in added):
            return "a text can encode to the id of BOS or EOS with this tokenizer"
    return None


@functools.lru_cache(maxsize=64)
def _text_makes(tokenizer: TokenizerSpec, token: int) -> bool:
    """Whether a text may make an id, where the names of special tokens are text like any other."""
    file = tokenizer_file(tokenizer)
    content = json.loads(file.json)
    named = [added for added in content.get("added_tokens") or () if added.get("id") == token]
    if not named or not all(added.get("special") for added in named):
        return True
    names = [str(added.get("content")) for added in named]
    model = content.get("model") or {}
    if model.get("unk_token") in names:
        return True
    encoder = Tokenizer.from_str(file.json)
    encoder.encode_special_tokens = True
    tried = [text for name in names for text in (name, f" {name}")]
    return any(token in encoding.ids for encoding in encoder.encode_batch(tried, add_special_tokens=False))
