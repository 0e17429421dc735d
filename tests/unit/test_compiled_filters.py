"""Compiled filters: kept up to a total length, and shared by threads."""

from concurrent.futures import ThreadPoolExecutor

from bellwire.filters import CompiledFilters, EventView
from bellwire.filters.compiled import MAX_CHARACTERS
from tests.factories import event


def wanted(number: int) -> str:
    return f'[{{"sql": "subject = \'{number:04}\'"}}, {{"data": {{"total": [{{"suffix": "EUR"}}]}}}}]'


def test_filters_are_compiled_once() -> None:
    compiled = CompiledFilters()
    assert compiled.get(wanted(1)) is compiled.get(wanted(1))
    assert compiled.get(wanted(1))(EventView(event(subject="0001")))
    assert not compiled.get(wanted(1))(EventView(event(subject="0002")))
    assert compiled.get("[]")(EventView(event()))


def test_filters_are_forgotten_above_a_total_length() -> None:
    compiled = CompiledFilters(max_characters=10 * len(wanted(0)))
    first = [compiled.get(wanted(number)) for number in range(10)]
    assert [compiled.get(wanted(number)) for number in range(10)] == first
    newest = compiled.get(wanted(10))
    assert compiled.get(wanted(10)) is newest
    kept = sum(compiled.get(wanted(number)) is first[number] for number in range(10))
    assert kept < 10
    # A filter longer than the limit is kept alone.
    long = f'[{{"exact": {{"subject": "{"a" * 10_000}"}}}}]'
    assert compiled.get(long) is compiled.get(long)
    assert compiled.get(wanted(10)) is not newest


def test_a_pass_over_more_filters_than_are_kept_finds_many_of_them() -> None:
    compiled = CompiledFilters(max_characters=100 * len(wanted(0)))
    before = [compiled.get(wanted(number)) for number in range(120)]
    found = 0
    for _ in range(20):
        now = [compiled.get(wanted(number)) for number in range(120)]
        found += sum(one is other for one, other in zip(now, before, strict=True))
        before = now
    assert found > 20 * 120 / 4


def test_the_filters_of_ten_thousand_subscriptions_are_kept() -> None:
    assert MAX_CHARACTERS / 10_000 >= 500


def test_threads_share_the_filters() -> None:
    compiled = CompiledFilters(max_characters=20 * len(wanted(0)))

    def match(number: int) -> bool:
        return compiled.get(wanted(number % 30))(EventView(event(subject=f"{number % 30:04}")))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(match, range(2_000)))
