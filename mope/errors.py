"""Everything mope raises on purpose. The command line turns each into one message and an exit code.

MopeError                 exit 1: the run failed through no fault of the input
├── TrainingError         a stage could not go on (NaN loss, out of memory, disk full)
├── MissingExtra          an optional dependency is not installed
├── HubError              the Hub fails, or cannot be reached
├── Overloaded            more forecasts are asked for than may wait
├── LateForecast          a forecast missed its deadline: go on without it
└── BadInput              exit 2: what came cannot be used
    ├── DataError         rows, files, columns
    ├── ConfigError       recipe keys, presets, flags
    ├── BundleError       a bundle folder that is not whole or not ours
    └── PromptError       a prompt or chat that cannot be predicted
"""

from __future__ import annotations


class MopeError(Exception):
    """Base of all errors mope raises on purpose."""

    exit_code = 1


class TrainingError(MopeError):
    """A training stage could not go on; what was finished before it is kept."""


class MissingExtra(MopeError):
    """An optional dependency is not installed; the message holds the install command."""


class Overloaded(MopeError):
    """A batcher's queue is full or closed; ask again later or go on without a forecast."""


class LateForecast(MopeError):
    """A forecast was not there by its deadline; go on without it."""


class HubError(MopeError):
    """The Hub fails or cannot be reached: nothing is wrong with what was asked."""


class BadInput(MopeError):
    """What came cannot be used. The message says what came, what was expected and what to do."""

    exit_code = 2

    def __init__(self, came: str, expected: str = "", todo: str = "") -> None:
        self.came, self.expected, self.todo = came, expected, todo
        parts = [came, expected and f"expected: {expected}", todo and f"what to do: {todo}"]
        super().__init__("; ".join(part for part in parts if part))


class DataError(BadInput):
    """Rows, files or columns that cannot be read as (prompt, length)."""


class ConfigError(BadInput):
    """An unknown or contradictory preset, recipe key or flag."""


class BundleError(BadInput):
    """A bundle folder that is not whole, not ours, or was changed."""


class PromptError(BadInput):
    """A prompt or chat that cannot be predicted."""
