"""Hostile templates: each stays within its limits, in the worker and in a child process."""

import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.rendering.renderer import Renderer
from activities.rendering.sandbox.output import MAX_OUTPUT_BYTES
from activities.rendering.tenant_renderer import TenantRenderer
from bellwire.errors import TemplateInvalid
from tests.factories import event, send_request, subscription

#: Limits of one rendering: seconds of CPU time, with a memory profiler that makes it four times as slow, and bytes.
MAX_SECONDS, MAX_MEMORY = 30.0, 100_000_000
LARGE, LONG, DEEP = "too large", "took too long", "too large: it is nested too deeply"


def doubled(first: str, then: str) -> str:
    return f"{{% set ns = namespace(s={first}) %}}{{% for i in range(99) %}}{{% set ns.s = {then} %}}{{% endfor %}}{{{{ ns.s }}}}"


BIG = "{% set s = 'a' * 60000 %}"
OFTEN = BIG + "{% for i in range(99999) %}DO{% endfor %}"

SMS = {"channel": "sms", "to": "+14155550123"}

HOSTILE = {
    "text repeated": ("{{ 'a' * 200000000 }}", LARGE),
    "text repeated the other way": ("{{ 200000000 * 'a' }}", LARGE),
    "a list repeated": ("{{ ([1] * 200000000) | length }}", LARGE),
    "a power": ("{{ 9 ** 99999999 }}", LARGE),
    "a number squared for ever": (
        "{% set ns = namespace(n=9) %}{% for i in range(99999) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
        LARGE,
    ),
    "a wide %": ("{{ '%0200000000d' % 1 }}", LARGE),
    "a wide % with a name": ("{{ '%(a)200000000d' % {'a': 1} }}", LARGE),
    "a wide % with an odd name": ("{{ '%(a%b)200000000d' % {'a%b': 1} }}", LARGE),
    "a precise %": ("{{ '%.200000000f' % 1 }}", LARGE),
    "a % of computed width": ("{{ '%*d' % (200000000, 1) }}", LARGE),
    "a wide format": ("{{ '%0200000000d' | format(1) }}", LARGE),
    "a format that repeats": (BIG + "{{ ('%(x)s' * 9999) | format(x=s) }}", LARGE),
    "a wide str.format": ("{{ '{:>200000000}'.format(1) }}", LARGE),
    "a str.format of computed width": ("{{ '{:>{}}'.format(1, 200000000) }}", LARGE),
    "center": ("{{ 'a' | center(200000000) }}", LARGE),
    "center by name": ("{{ 'a' | center(width=200000000) }}", LARGE),
    "str.center": ("{{ 'a'.center(200000000) }}", LARGE),
    "str.ljust": ("{{ 'a'.ljust(200000000) }}", LARGE),
    "str.zfill": ("{{ 'a'.zfill(200000000) }}", LARGE),
    "str.expandtabs": ("{{ '\t'.expandtabs(200000000) }}", "'expandtabs'"),
    "indent": ("{{ 'a\n' | indent(200000000, true) }}", LARGE),
    "indent with text": ("{% set s = 'a\n' * 50000 %}{{ s | indent(s) }}", LARGE),
    "join": ("{{ range(99999) | join('a' * 50000) }}", LARGE),
    "str.join": ("{{ ('a' * 50000).join(['b'] * 9999) }}", LARGE),
    "replace": (BIG + "{{ s | replace('a', s) }}", LARGE),
    "replace of nothing": (BIG + "{{ s.replace('', s) }}", LARGE),
    "batch": ("{{ [1] | batch(200000000, 'x') | list }}", LARGE),
    "slice": ("{{ [1] | slice(200000000) | list }}", LARGE),
    "wordwrap": ("{{ ('a ' * 30000) | wordwrap(1, wrapstring='b' * 60000) }}", LARGE),
    "urlize": ("{{ ('a.com ' * 9999) | urlize(target='b' * 60000) }}", LARGE),
    "striptags": ("{{ ('<!---->' * 60000) | striptags }}", LARGE),
    "tojson": ("{{ ([[[[[1]]]]] * 9999) | tojson(indent=200000000) }}", LARGE),
    "round": ("{{ 1.5 | round(99999999, 'ceil') }}", "precision"),
    "sum of lists": ("{{ ([[1] * 9] * 9) | sum(start=[]) }}", "works with numbers only"),
    "a long range": ("{{ range(999999999) | list }}", "OverflowError"),
    "lipsum": ("{{ lipsum(n=99999999) }}", "lipsum is missing"),
    "cycler": (
        "{% set c = cycler(*range(99999)) %}{% for i in range(99999) %}{{ c.next() }}{% endfor %}",
        LONG,
    ),
    "xmlattr": ("{{ {'a' * 60000: 1} | xmlattr }}", "xmlattr"),
    "loops in loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", LONG),
    "loops that leave out": (
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        LONG,
    ),
    "a loop that calls itself": ("{% for a in range(99) recursive %}{{ loop(range(99)) }}{% endfor %}", LARGE),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", DEEP),
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(80) }}",
        LONG,
    ),
    "a block that shows itself": ("{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}", DEEP),
    "~ doubling": (doubled("'a'", "ns.s ~ ns.s"), LARGE),
    "+ doubling": (doubled("'a'", "ns.s + ns.s"), LARGE),
    "lists doubling": (doubled("[1]", "[ns.s, ns.s]"), LARGE),
    "tuples doubling": (doubled("[1]", "(ns.s, ns.s)"), LARGE),
    "objects doubling": (doubled("{}", "{'a': ns.s, 'b': ns.s}"), LARGE),
    "dict() doubling": (doubled("{}", "dict(a=ns.s, b=ns.s)"), LARGE),
    "lists compared": (
        (
            "{% set a = namespace(s=[1], t=[1]) %}{% for i in range(99) %}{% set a.s = [a.s, a.s] %}{% set a.t = [a.t, a.t] %}"
            "{% endfor %}{{ a.s == a.t }}"
        ),
        LARGE,
    ),
    "text kept in a variable": (
        "{% set s %}{% for i in range(99999) %}" + "x" * 20000 + "{% endfor %}{% endset %}",
        LONG,
    ),
    "values kept in a variable": (BIG + "{% set t %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endset %}", LONG),
    "text put out": ("{% for i in range(99999) %}" + "x" * 20000 + "{% endfor %}", f"{MAX_OUTPUT_BYTES:,} bytes"),
    "sorting in a loop": ("{% for i in range(99999) %}{{ range(99999) | sort | first }}{% endfor %}", LARGE),
    "map in a loop": ("{% for i in range(99999) %}{{ range(999) | map('string') | list | length }}{% endfor %}", LONG),
    "unique in a loop": ("{% for i in range(99999) %}{{ range(999) | unique | list | length }}{% endfor %}", LONG),
    "groupby in a loop": (
        "{% for i in range(99999) %}{% for g in [{'a': 1}] | groupby('a') %}{% endfor %}{% endfor %}",
        LONG,
    ),
    "in, in a loop": (OFTEN.replace("DO", "{{ (s ~ 'b') in s }}"), LONG),
    "is in, in a loop": (OFTEN.replace("DO", "{{ s is in([s]) }}"), LONG),
    "== in a loop": (BIG + "{% set t = 'a' * 60000 %}{% for i in range(99999) %}{{ s == t }}{% endfor %}", LONG),
    "find in a loop": (OFTEN.replace("DO", "{{ s.find(s ~ 'b') }}"), LONG),
    "slices in a loop": (OFTEN.replace("DO", "{% set t = s[1:] %}"), LONG),
    "split in a loop": (OFTEN.replace("DO", "{% set t = s.split('a') %}"), LONG),
    "title in a loop": (OFTEN.replace("DO", "{% set t = s | title %}"), LONG),
    "escape in a loop": (OFTEN.replace("DO", "{% set t = s | escape %}"), LONG),
    "work while compiling": ("{% autoescape 'a' | center(200000000) %}{% endautoescape %}", LARGE),
    "deep blocks": ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, DEEP),
    "deep expressions": ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", DEEP),
    "a long chain": ("{{ a" + ".a" * 30000 + " }}", DEEP),
    "a long sum": ("{{ 1" + "+1" * 30000 + " }}", DEEP),
    "classes": ("{{ ''.__class__.__mro__ }}", "__"),
    "classes by index": ("{{ ''['__class__'] }}", "unsafe"),
    "classes by format": ("{{ '{0.__class__}'.format(1) }}", "unsafe"),
    "classes by filter": ("{{ '' | attr('__class__') }}", "attr"),
    "globals of functions": ("{{ joiner['__init__']['__globals__'] }}", "unsafe"),
    "methods of functions": ("{{ dict.fromkeys(range(9)) }}", "fromkeys"),
    "methods of lists": ("{% set l = [] %}{{ l.append(1) }}", "append"),
    "methods of data": ("{{ data.update({}) }}", "update is missing"),
    "methods of data by index": ("{{ data['update']({}) }}", "a variable is missing"),
    "chance": ("{{ [1, 2] | random }}", "random"),
}

#: A long template without anything unusual.
ORDINARY = (
    "{% for i in range(500) %}{{ '%05d' | format(i) ~ ' ' }}{{ data.order.center(10) | replace('4', '5') }}{% endfor %}"
)


def peak_memory(pid: int) -> int:
    """Bytes of address space."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))


@pytest.fixture(scope="module")
async def tenants() -> AsyncIterator[TenantRenderer]:
    renderer = TenantRenderer(processes=1, timeout=30)
    yield renderer
    await renderer.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_template_of_an_operator_stays_within_limits_of_cpu_time_and_memory(
    name: str, tmp_path: Path
) -> None:
    source, message = HOSTILE[name]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sms.txt").write_text(source)
    renderer, request = Renderer(tmp_path), send_request(subscription(SMS), event(type="a"))
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(TemplateInvalid) as caught:
            await renderer.text(request, "sms.text")
        spent, (_, memory) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert spent < MAX_SECONDS
    assert memory < MAX_MEMORY


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_template_of_a_tenant_stays_within_the_limits_of_its_process(
    name: str, tenants: TenantRenderer
) -> None:
    source, message = HOSTILE[name]
    with pytest.raises(TemplateInvalid) as caught:
        await tenants.render({"sms.text": source}, ["sms.text"], {"data": {}})
    assert message in str(caught.value) or "__" in message
    (pid,) = tenants.pids
    assert peak_memory(pid) <= 256 * 1024 * 1024


async def test_an_ordinary_long_template_uses_a_quarter_of_the_budget(tmp_path: Path, tenants: TenantRenderer) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sms.txt").write_text(ORDINARY)
    renderer = Renderer(tmp_path)
    text = await renderer.text(send_request(subscription(SMS), event(type="a")), "sms.text")
    assert text.count("    52    ") == 499
    assert renderer._environment.budget.spent < 25_000
    texts = await tenants.render({"sms.text": ORDINARY}, ["sms.text"], {"data": {"order": "42"}})
    assert texts["sms.text"].strip() == text
