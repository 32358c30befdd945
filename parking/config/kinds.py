"""Kinds of config values: which values are allowed, and the words that say so in error messages."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Kind(Protocol):
    """A set of allowed values."""

    @property
    def allowed(self) -> str:
        """Words that complete the sentence "KEY must be ..."."""

    def allows(self, value: Any) -> bool:
        """Whether ``value`` is allowed; must not raise an error for any value."""


@dataclass(frozen=True)
class Whole:
    """A whole number from ``low`` to ``high``."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def allows(self, value: Any) -> bool:
        # Compare types, because isinstance(value, int) would allow True and False, too.
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class Real:
    """A finite number from ``low`` to ``high``; ``above`` excludes ``low``, ``below`` excludes ``high``."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    @property
    def allowed(self) -> str:
        return (
            f"a number {'above' if self.above else 'of at least'} {self.low:g} and "
            f"{'below' if self.below else 'at most'} {self.high:g}"
        )

    def allows(self, value: Any) -> bool:
        if type(value) not in (int, float) or not self.low <= value <= self.high:  # NaN fails this comparison
            return False
        return not (self.above and value == self.low) and not (self.below and value == self.high)


@dataclass(frozen=True)
class Flag:
    """True or False."""

    allowed: str = "True or False"

    def allows(self, value: Any) -> bool:
        return type(value) is bool


class OneOf:
    """One of the given names, spelled exactly as given, or one of the given whole numbers."""

    def __init__(self, *names: str | int):
        self.names = names
        self.allowed = f"one of {', '.join(str(name) or repr(name) for name in names)}"

    def allows(self, value: Any) -> bool:
        return type(value) in (str, int) and value in self.names


@dataclass(frozen=True)
class Text:
    """A string that matches ``pattern`` as a whole; NUL is never allowed, because file names must not contain it."""

    pattern: str = r".*"
    allowed: str = "a text"

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and "\0" not in value and re.fullmatch(self.pattern, value, re.DOTALL) is not None


class ListOf:
    """A list whose entries are all of the kind ``item``, with limits on its length."""

    def __init__(
        self,
        item: Kind,
        *,
        length: int | None = None,
        min_length: int = 0,
        also: Callable[[Any], bool] = lambda value: True,
        allowed: str | None = None,
    ):
        """
        Args:
            length: exact number of entries; None: any number.
            min_length: smallest number of entries.
            also: further condition, called with a list whose entries and length are allowed.
            allowed: words for :attr:`Kind.allowed`; by default made from ``item`` and the length.
        """
        self._item, self._length, self._min_length, self._also = item, length, min_length, also
        number = f" of {length}" if length is not None else f" of at least {min_length}" if min_length else ""
        self.allowed = allowed or f"a list{number}, each {item.allowed}"

    def allows(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) < self._min_length:
            return False
        return self._length in (None, len(value)) and all(map(self._item.allows, value)) and self._also(value)


@dataclass(frozen=True)
class Such:
    """A value for which ``holds`` returns True; ``holds`` must not raise an error for any value."""

    holds: Callable[[Any], bool]
    allowed: str

    def allows(self, value: Any) -> bool:
        return self.holds(value)
