"""Compiled filters: the filters of a subscription, parsed once for many events."""

import threading

from pydantic import TypeAdapter

from bellwire.filters.dialects import Filter, Test, all_of
from bellwire.models import TRUSTED

#: Maximum characters of the filters that are kept compiled. A compiled filter needs up to 65 bytes for each of its characters.
MAX_CHARACTERS = 2_000_000

_FILTERS: TypeAdapter[tuple[Filter, ...]] = TypeAdapter(tuple[Filter, ...])


class CompiledFilters:
    """Compiles filters by their JSON text, and keeps the latest ones up to a total length. Threads may share it."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._tests: dict[str, Test] = {}
        self._characters = 0
        self._lock = threading.Lock()

    def get(self, text: str) -> Test:
        """Return what checks an event by the filters of this text, which were validated when they were stored."""
        return self._tests.get(text) or self._add(text)

    def _add(self, text: str) -> Test:
        test = all_of(_FILTERS.validate_json(text, context=TRUSTED))
        with self._lock:
            if text not in self._tests:
                self._tests[text] = test
                self._characters += len(text)
            while self._characters > self._max_characters and len(self._tests) > 1:
                oldest = next(iter(self._tests))
                del self._tests[oldest]
                self._characters -= len(oldest)
        return test
