"""Every error that Stillwatch raises on purpose.

    StillwatchError (1)
    ├── ConfigError (78)        a configuration value, file or topic that can't be used
    │   └── InvalidConfig       values that are wrong, each with its place
    ├── ModelError (78)         a model folder that can't be used
    ├── SourceError (69)        a camera, stream or device that can't be reached now
    │   └── EndOfStream         the source has ended; not a fault
    ├── CorruptInput (74)       a file that is there and can't be decoded
    ├── StorageError (1)        a disk that is full, or a folder that can't be written
    ├── BrokerError (69)        an MQTT broker that can't be reached or refuses us
    ├── DescriberError (69)     a vision server that can't be reached, refuses us or gives no words
    └── EngineFault (1)         a runtime that failed during one call

The number is the exit status of the command that ends on it. Messages name the file, key or topic, what was found,
what was expected, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


class StillwatchError(Exception):
    """Base of all; `exit_code` is the process's exit status when it ends on this error."""

    exit_code = 1


class ConfigError(StillwatchError):
    """A configuration value, file or topic that can't be used."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong value. path: dotted. origin: where it was written, `agent.yaml:12` or `STILLWATCH_MODEL`."""

    path: str
    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.path}: {self.message}"


class InvalidConfig(ConfigError):
    """A configuration with wrong values; the message has a line for each."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class ModelError(StillwatchError):
    """A model folder that is missing, incomplete, damaged or of another kind."""

    exit_code = 78


class SourceError(StillwatchError):
    """A source that can't be opened or read now; a retry may help."""

    exit_code = 69


class EndOfStream(SourceError):
    """The source has delivered its last frame."""


class CorruptInput(StillwatchError):
    """A file that exists and can't be decoded; a retry won't help."""

    exit_code = 74


class StorageError(StillwatchError):
    """A disk that is full, or a folder that can't be written."""


class BrokerError(StillwatchError):
    """An MQTT broker that can't be reached or refuses the connection."""

    exit_code = 69


class DescriberError(StillwatchError):
    """A vision server that can't be reached, refuses us or gives no words.

    permanent: asking again brings the same until somebody mends it. retry_after_s: how long the server asks to wait.
    """

    exit_code = 69

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class EngineFault(StillwatchError):
    """The inference runtime failed during one call; the frame is lost, the engine may go on."""


def in_words(error: BaseException) -> str:
    """What an error says; with its class where that is none of ours, for such messages are often a bare word."""
    return str(error) if isinstance(error, StillwatchError) else f"{type(error).__name__}: {error}"
