"""What can go wrong on the board, in words that the caller understands."""

from __future__ import annotations


class AgentError(Exception):
    """Something that the caller can understand.

    `kind` is request, hash, signature, runtime, model, meter, disk, full (no space on a disk) or memory.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def first_line(exc: BaseException) -> str:
    """What a foreign error says, without its stack."""
    text = str(exc).strip().splitlines()
    return text[0][:300] if text else type(exc).__name__
