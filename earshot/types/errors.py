"""What goes wrong by a user's doing."""

from __future__ import annotations


class EarshotError(ValueError):
    """A user's error: the message says what was given, what is allowed and what to do."""


class NotANumberError(EarshotError):
    """A model makes of something what is no number."""


class AudioError(EarshotError):
    """A file that cannot be used as audio. `reason` is one line without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return AudioError, (self.path, self.reason)
