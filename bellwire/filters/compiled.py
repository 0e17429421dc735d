"""Compiled filters: the filters of a subscription, parsed once for many events."""

import random
import threading

from pydantic import TypeAdapter

from bellwire.filters.dialects import Filter, Test, all_of
from bellwire.models import TRUSTED

#: Maximum characters of the filters that are kept compiled. A compiled filter needs up to 65 bytes for each of its characters.
MAX_CHARACTERS = 6_000_000

_FILTERS: TypeAdapter[tuple[Filter, ...]] = TypeAdapter(tuple[Filter, ...])


class CompiledFilters:
    """Compiles filters by their JSON text, and keeps them up to a total length. Threads may share it.

    Above it, random ones make room. An event is matched with all subscriptions in order: if the oldest made room, those that come
    next would be gone each time.
    """

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._tests: dict[str, Test] = {}
        #: The keys of `_tests`, in any order.
        self._texts: list[str] = []
        self._characters = 0
        self._lock = threading.Lock()

    def get(self, text: str) -> Test:
        """Return what checks an event by the filters of this text, which were validated when they were stored."""
        return self._tests.get(text) or self._add(text)

    def _add(self, text: str) -> Test:
        test = all_of(_FILTERS.validate_json(text, context=TRUSTED))
        with self._lock:
            if text not in self._tests:
                self._characters += len(text)
                while self._texts and self._characters > self._max_characters:
                    self._forget()
                self._tests[text] = test
                self._texts.append(text)
        return test

    def _forget(self) -> None:
        number = random.randrange(len(self._texts))  # noqa: S311 - no secret
        text, self._texts[number] = self._texts[number], self._texts[-1]
        self._texts.pop()
        del self._tests[text]
        self._characters -= len(text)
