"""The error that gigatoken cannot be used with a tokenizer."""

from __future__ import annotations

from transforms.errors import UsageError


class GigatokenUnfitError(UsageError):
    """Gigatoken cannot be used with a tokenizer; `reason` ("does not …") stands after its name."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"gigatoken {reason}; use the engine `tokenizers`, or `auto`")
        self.reason = reason
