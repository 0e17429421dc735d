"""Compiled filters: kept up to a total length, and shared by threads."""

from concurrent.futures import ThreadPoolExecutor

from bellwire.filters import CompiledFilters, EventView
from tests.factories import event


def wanted(number: int) -> str:
    return f'[{{"sql": "subject = \'{number:04}\'"}}, {{"data": {{"total": [{{"suffix": "EUR"}}]}}}}]'


def test_filters_are_compiled_once() -> None:
    compiled = CompiledFilters()
    assert compiled.get(wanted(1)) is compiled.get(wanted(1))
    assert compiled.get(wanted(1))(EventView(event(subject="0001")))
    assert not compiled.get(wanted(1))(EventView(event(subject="0002")))
    assert compiled.get("[]")(EventView(event()))


def test_the_oldest_filters_are_forgotten() -> None:
    compiled = CompiledFilters(max_characters=10 * len(wanted(0)))
    first = [compiled.get(wanted(number)) for number in range(10)]
    assert compiled.get(wanted(0)) is first[0]
    compiled.get(wanted(10))
    assert compiled.get(wanted(1)) is first[1]
    assert compiled.get(wanted(0)) is not first[0]
    # A filter longer than the limit is kept alone.
    long = f'[{{"exact": {{"subject": "{"a" * 10_000}"}}}}]'
    assert compiled.get(long) is compiled.get(long)
    assert compiled.get(wanted(1)) is not first[1]


def test_threads_share_the_filters() -> None:
    compiled = CompiledFilters(max_characters=20 * len(wanted(0)))

    def match(number: int) -> bool:
        return compiled.get(wanted(number % 30))(EventView(event(subject=f"{number % 30:04}")))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(match, range(2_000)))
