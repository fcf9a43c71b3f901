"""Tokenizer files: a `tokenizer.json` from disk, a bucket or the hub, with the ids of its BOS and EOS tokens.

The format is that of the `tokenizers` library; `tokenizer_config.json` is the file that `transformers` writes beside
it, and the only one of the two that says which token is BOS and which EOS.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import logging
import os
import zlib
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from transforms.errors import BroetchenError, UsageError, did_you_mean, listed, one_line, without_controls
from transforms.files import storage
from transforms.files.hub_path import COMMIT
from transforms.first_contact import make_contact
from transforms.tokenizer.spec import is_hub_id

_LOGGER = logging.getLogger(__name__)

_FILE_NAMES = ("tokenizer.json", "tokenizer.json.gz")
_CONFIG_NAME = "tokenizer_config.json"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as read, checked to load.

    Attributes:
        json: contents of tokenizer.json.
        sha256: hexadecimal digest of those contents as bytes (uncompressed: a .gz has the digest of its content).
        bos_id, eos_id: ids of the BOS and EOS tokens; None where neither caller nor tokenizer_config.json names one.
        bos_token, eos_token: their names.
        vocab_size: one more than the largest id, added tokens included.
        config_json: contents of tokenizer_config.json; None where there is none beside.
    """

    json: str
    sha256: str
    bos_id: int | None
    eos_id: int | None
    bos_token: str | None
    eos_token: str | None
    vocab_size: int
    config_json: str | None


def load_tokenizer(
    path: str, *, revision: str | None = None, bos_token: str | None = None, eos_token: str | None = None
) -> TokenizerFile:
    """Loads a tokenizer.

    Args:
        path: a tokenizer.json (or .json.gz); a directory that holds one; either on any of Beam's file systems
            (`gs://…`); or a hub id, `owner/name`. A path that exists is never taken for a hub id.
        revision: the commit of a hub id, all 40 hexadecimal digits: a branch or a tag would not pin the ids.
        bos_token, eos_token: names of these tokens, where tokenizer_config.json does not give them or gives others.

    Raises:
        UsageError: there is no such file; it is not JSON, or cut short, or not a tokenizer that `tokenizers` can load;
            a token named by the caller is not in its vocabulary; a hub id comes without a full commit.
        BroetchenError: the hub cannot be reached.
    """
    file, config = _read_hub(path, revision) if _is_on_hub(path, revision) else _read_files(path)
    return _checked(file, config, bos_token, eos_token)


@dataclass(frozen=True)
class _File:
    where: str  # for messages
    data: bytes

    def text(self) -> str:
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.where}: not UTF-8 at byte {error.start}; is it the right file?") from error

    def parse(self) -> dict[str, Any]:
        text = self.text()
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            hint = "it ends too early: copy it again" if error.pos >= len(text.rstrip()) else "is it the right file?"
            place = f"line {error.lineno}, column {error.colno}"
            raise UsageError(f"{self.where}: not JSON at {place} ({error.msg}); {hint}") from error
        except (RecursionError, ValueError) as error:  # a number of thousands of digits is a ValueError
            what = "nested too deep" if isinstance(error, RecursionError) else one_line(error)
            raise UsageError(f"{self.where}: JSON that cannot be read ({what}); is it the right file?") from error
        if not isinstance(parsed, dict):
            raise UsageError(f"{self.where}: holds no JSON object; is it the right file?")
        return parsed


_unused: dict[str, Tokenizer] = {}


def new_tokenizer(tokenizer_json: str) -> Tokenizer:
    """A tokenizer that nobody else changes: the one that was made to check its file, for the first to ask for it."""
    return _unused.pop(tokenizer_json, None) or Tokenizer.from_str(tokenizer_json)


# Large ones take a quarter of a second, and several sources mostly have the same.
@functools.lru_cache(maxsize=4)
def _checked(file: _File, config: _File | None, bos_token: str | None, eos_token: str | None) -> TokenizerFile:
    file.parse()
    try:
        tokenizer = new_tokenizer(file.text())
    except Exception as error:  # tokenizers raises plain Exception
        raise UsageError(f"{file.where}: tokenizers cannot load it: {error}") from error
    _unused.clear()
    _unused[file.text()] = tokenizer
    settings = {} if config is None else config.parse()
    bos = _find_token(tokenizer, file.where, "bos_token", bos_token, settings)
    eos = _find_token(tokenizer, file.where, "eos_token", eos_token, settings)
    return TokenizerFile(
        json=file.text(),
        sha256=hashlib.sha256(file.data).hexdigest(),
        bos_id=bos[1],
        eos_id=eos[1],
        bos_token=bos[0],
        eos_token=eos[0],
        vocab_size=max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        config_json=None if config is None else config.text(),
    )


def _find_token(
    tokenizer: Tokenizer, where: str, key: str, given: str | None, settings: dict[str, Any]
) -> tuple[str | None, int | None]:
    """Name and id of the BOS or EOS token: the one that the caller names, else the one of tokenizer_config.json."""
    configured = settings.get(key)
    if isinstance(configured, dict):  # an added token, written out
        configured = configured.get("content")
    name = configured if given is None else given
    if name is None:
        return None, None
    token_id = tokenizer.token_to_id(name) if isinstance(name, str) else None
    if token_id is not None:
        return name, token_id
    if given is not None:
        raise UsageError(
            f"{where}: {key} {name!r} is not in its vocabulary; name a token that is{_special(tokenizer)}", key
        )
    # Such files are common, and harmless unless the mix config asks for the token.
    _LOGGER.warning("%s: leaving out %s %r of %s, which is not in the vocabulary", where, key, name, _CONFIG_NAME)
    return None, None


def _special(tokenizer: Tokenizer) -> str:
    names = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return f"; its special tokens are {without_controls(listed(names, 6))}" if names else ""


def special_tokens_of(tokenizer: TokenizerFile) -> str:
    """The special tokens that a tokenizer has, as the end of a message; empty where it has none."""
    return _special(Tokenizer.from_str(tokenizer.json))


def _is_on_hub(path: str, revision: str | None) -> bool:
    # A name alone is that of a repository only where a revision says so: it may be a mistyped folder's.
    if os.path.exists(path) or not is_hub_id(path) or (revision is None and "/" not in path):
        if revision is not None:
            raise UsageError(f"{path}: `revision` is for a hub id (owner/name); this is a file or directory")
        return False
    if revision is None or not COMMIT.fullmatch(revision):
        given = "" if revision is None else f", not {revision!r}"
        raise UsageError(
            f"{path}: no such file or directory; a hub id needs `revision`: a full commit, 40 hexadecimal digits{given}"
        )
    return True


def _read_hub(repository: str, revision: str | None) -> tuple[_File, _File | None]:
    """tokenizer.json and, if there, tokenizer_config.json."""
    file = _fetch(repository, revision, _FILE_NAMES[0])
    if file is None:
        raise UsageError(f"{repository}@{revision}: the hub has no {_FILE_NAMES[0]} there; check `path` and `revision`")
    return file, _fetch(repository, revision, _CONFIG_NAME)


def _fetch(repository: str, revision: str | None, name: str) -> _File | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # a quarter of a second that files are spared
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"{repository}@{revision}/{name}"
    try:
        if try_to_load_from_cache(repository, name, revision=revision) is None:
            make_contact("hf://")
        with open(hf_hub_download(repository, name, revision=revision), "rb") as file:
            return _File(where, file.read())
    except LocalEntryNotFoundError as error:
        raise BroetchenError(f"{where}: the hub cannot be reached; check the network and try again") from error
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UsageError(f"{where}: is no hub id: {one_line(error)}; check `path` of the tokenizer") from error
    except HfHubHTTPError as error:  # no such repository or revision, or no right to it
        raise UsageError(f"{where}: the hub does not give it: {one_line(error)}") from error
    except OSError as error:
        raise BroetchenError(f"{where}: cannot be fetched: {one_line(error)}") from error


def _read_files(path: str) -> tuple[_File, _File | None]:
    """As `_read_hub`, from a file system."""
    if path.endswith((".json", ".gz")) or os.path.isfile(path):
        folder, candidates = storage.split(path)[0], [path]
    else:
        folder, candidates = path, [storage.join(path, name) for name in _FILE_NAMES]
    for candidate in candidates:
        if storage.exists(candidate):
            config = storage.join(folder, _CONFIG_NAME) if folder else _CONFIG_NAME
            return _read(candidate), _read(config) if storage.exists(config) else None
    near = _near(path)
    raise UsageError(f"there is no {' and no '.join(candidates)}; {near or 'check `path` of the tokenizer'}")


def _near(path: str) -> str:
    """The question whether another name of the folder was meant; empty where none is near, or it is not local."""
    if not storage.is_local(path):
        return ""
    above, name = storage.split(path.rstrip("/"))
    try:
        return without_controls(did_you_mean(name, os.listdir(above or ".")))
    except OSError:
        return ""


def _read(path: str) -> _File:
    """A file, unpacked where it is a .gz."""
    data = storage.read_bytes(path)
    try:
        return _File(path, gzip.decompress(data) if path.endswith(".gz") else data)
    except (EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{path}: not a whole gzip file ({error}); copy it again") from error
