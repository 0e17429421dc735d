"""Templates of tenants are rendered in child processes that have no access to anything and end with the worker."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activities.email.channel import EmailChannel
from activities.email.smtp_pool import SmtpPool
from activities.rendering.renderer import Renderer
from activities.rendering.sandbox.child import NICENESS
from activities.rendering.sandbox.framing import HEADER, frame, length
from activities.rendering.tenant_renderer import TenantRenderer
from bellwire.deliveries import OutcomeKind
from bellwire.errors import TemplateInvalid
from tests.factories import event, send_request, subscription

EMAIL = {"channel": "email", "to": "ann@example.com"}
HOOK = {"channel": "webhook", "url": "https://app.example/hooks"}
#: Takes almost the whole budget, and longer than the shortest timeout.
SLOW = "{% for i in range(90000) %}{% endfor %}"
CHECKOUT = Path(__file__).parents[3]
WORKER = """
import asyncio, sys
from activities.rendering.tenant_renderer import TenantRenderer

async def main():
    tenants = TenantRenderer(processes=1, timeout=30)
    await tenants.render({"sms.text": "x"}, ["sms.text"], {})
    print(*tenants.pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
async def tenants() -> AsyncIterator[TenantRenderer]:
    renderer = TenantRenderer(processes=1, timeout=30)
    yield renderer
    await renderer.close()


async def ended(pid: int) -> None:
    """Wait until the process has ended. A zombie that its parent has not waited for counts as ended."""
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():  # noqa: ASYNC240
            await asyncio.sleep(0.02)


def with_templates(target: dict[str, Any], **templates: str) -> Any:
    return subscription(target, templates={name.replace("_", "."): source for name, source in templates.items()})


async def test_templates_of_a_tenant_win_and_the_others_come_from_the_operator(tenants: TenantRenderer) -> None:
    renderer = Renderer(None, tenants=tenants)
    own = await renderer.email(send_request(with_templates(EMAIL, email_text="Hello {{ data.order }}"), event()))
    assert (own.subject, own.text, own.html) == ("Order 42 is paid", "Hello 42\n", None)
    own = await renderer.email(
        send_request(with_templates(EMAIL, email_subject="Yours: {{ data.order }}\nBcc: eve@example.com"), event())
    )
    assert own.subject == "Yours: 42 Bcc: eve@example.com"
    assert own.text is not None
    assert own.text.startswith("Order 42 is paid")
    own = await renderer.email(
        send_request(with_templates(EMAIL, email_html="<p>{{ data.a }}</p>"), event(data={"a": "<b>"}))
    )
    assert (own.text, own.html) == ("<b>\n", "<p>&lt;b&gt;</p>")
    sms = {"channel": "sms", "to": "+14155550123"}
    assert (
        await renderer.text(
            send_request(with_templates(sms, sms_text=" {{ data | rows | length }} {{ type }} "), event()), "sms.text"
        )
        == "2 order.paid"
    )


async def test_a_byte_order_mark_of_a_tenants_template_is_dropped(tenants: TenantRenderer) -> None:
    sources = {
        "email.subject": "\ufeffOrder {{ data.order }}",
        "email.text": "\ufeffHi",
        "email.html": "\ufeff<p>Hi</p>",
        "webhook.json": "\ufeff{}",
    }
    assert await tenants.render(sources, list(sources), {"data": {"order": "42"}}) == {
        "email.subject": "Order 42",
        "email.text": "Hi",
        "email.html": "<p>Hi</p>",
        "webhook.json": "{}",
    }


async def test_a_webhook_template_must_produce_json(tenants: TenantRenderer, tmp_path: Path) -> None:
    renderer = Renderer(tmp_path, tenants=tenants)
    good = '{"text": {{ "Order " ~ data.order }}, "id": {{ id | tojson }}}'
    published = event(id="1", data={"order": 'a"b</script>é'})
    assert await renderer.text(send_request(with_templates(HOOK, webhook_json=good), published), "webhook.json") == (
        '{"text": "Order a\\"b</script>é", "id": "1"}'
    )
    bad = '{\n"text": "{{ data.order }}"}'
    with pytest.raises(TemplateInvalid, match=r"webhook\.json: the result is not JSON: line 2: "):
        await renderer.text(send_request(with_templates(HOOK, webhook_json=bad), published), "webhook.json")
    with pytest.raises(TemplateInvalid, match=r"template default/webhook\.json does not exist"):
        await renderer.text(send_request(subscription(HOOK), published), "webhook.json")
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "order.paid" / "webhook.json").write_text("[{{ type | tojson }}]")
    renderer.check()
    assert await renderer.text(send_request(subscription(HOOK), published), "webhook.json") == '["order.paid"]'


@pytest.mark.parametrize(
    "source",
    ["{{ data[data.word] }}", "{{ data[data.word].length }}", "{{ [data] | map(attribute=data.word) | join }}"],
)
async def test_the_error_for_a_missing_computed_name_does_not_show_the_name(
    source: str, tenants: TenantRenderer
) -> None:
    published = event(data={"word": "ann"})
    with pytest.raises(TemplateInvalid, match=r"^template email\.text line 1: a variable is missing$"):
        await Renderer(None, tenants=tenants).email(send_request(with_templates(EMAIL, email_text=source), published))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ok\n{% if %}", r"template sms\.text line 2: Expected an expression"),
        ("\n{{ 1 | nofilter }}", r"template sms\.text line 2: no filter named 'nofilter'"),
        ("{% if false %}{{ 1 | nofilter }}{% endif %}", "no filter named 'nofilter'"),
        ("{{ 1 is notest }}", "no test named 'notest'"),
        ("{% include '_details.txt' %}", r"template sms\.text line 1: include is not available here"),
        ("{% extends '_layout.html' %}", "extends is not available here"),
        ("{% import 'default/sms.txt' as x %}", "import is not available here"),
        ("{% from 'default/sms.txt' import x %}", "from is not available here"),
        ("{{ data.__class__ }}", "access to __class__ is not available"),
    ],
)
async def test_check_refuses_what_is_not_available_to_tenants(
    source: str, message: str, tenants: TenantRenderer
) -> None:
    with pytest.raises(TemplateInvalid, match=message):
        await tenants.check({"email.text": "fine", "sms.text": source})


async def test_the_error_for_a_missing_variable_names_template_and_line_but_no_data(tenants: TenantRenderer) -> None:
    with pytest.raises(TemplateInvalid, match=r"^template email\.text line 2: total is missing$"):
        await tenants.render({"email.text": "a\n{{ data.total }}"}, ["email.text"], {"data": {"x": "ann@example.com"}})


async def test_a_template_that_takes_too_long_is_killed_and_blocked_and_others_are_rendered() -> None:
    tenants = TenantRenderer(processes=1, timeout=0.005)
    sources = {"sms.text": SLOW, "email.text": "Hello"}
    try:
        await tenants.check({"sms.text": "{{ data.order }}"})
        (before,) = tenants.pids
        with pytest.raises(TemplateInvalid, match=r"^template took too long: more than 0\.005 s$"):
            await tenants.render(sources, ["sms.text"], {})
        await ended(before)
        assert before not in tenants.pids
        with pytest.raises(TemplateInvalid, match="took too long"):
            # This one alone would be rendered, if its set were not blocked.
            await tenants.render(sources, ["email.text"], {})
        await tenants.check({"sms.text": "x"})
        assert before not in tenants.pids
    finally:
        await tenants.close()


async def test_a_child_that_dies_is_replaced(tenants: TenantRenderer) -> None:
    assert await tenants.render({"sms.text": "x"}, ["sms.text"], {}) == {"sms.text": "x"}
    (before,) = tenants.pids
    os.kill(before, signal.SIGKILL)
    await ended(before)
    with pytest.raises(TemplateInvalid, match="its process was killed"):
        await tenants.render({"sms.text": "y"}, ["sms.text"], {})
    assert await tenants.render({"sms.text": "x"}, ["sms.text"], {}) == {"sms.text": "x"}
    assert tenants.pids != [before]


async def test_the_response_to_a_cancelled_request_does_not_reach_the_next_request() -> None:
    tenants = TenantRenderer(processes=1, timeout=30)
    try:
        await tenants.check({"sms.text": "x"})
        rendering = asyncio.create_task(tenants.render({"sms.text": SLOW}, ["sms.text"], {}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rendering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rendering
        assert await tenants.render({"sms.text": "mine"}, ["sms.text"], {}) == {"sms.text": "mine"}
    finally:
        await tenants.close()


async def test_a_child_has_no_environment_and_cannot_open_files(
    tenants: TenantRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELLWIRE_SMTP_PASSWORD", "hush")
    await tenants.check({"sms.text": "x"})
    (pid,) = tenants.pids
    process = Path(f"/proc/{pid}")
    assert b"hush" not in (process / "environ").read_bytes()
    assert b"TEMPORAL" not in (process / "environ").read_bytes()
    assert sorted(file.name for file in (process / "fd").iterdir()) == ["0", "1", "2"]
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max address space"] == [str(256 * 1024 * 1024)] * 2
    assert limits["Max processes"] == ["0", "0"]
    assert limits["Max cpu time"][0] != "unlimited"


async def test_a_child_keeps_what_it_has_compiled() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "activities.rendering.sandbox.child", str(256 * 1024 * 1024), "60"),
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout

    async def response() -> Any:
        assert child.stdout
        return json.loads(await child.stdout.readexactly(length(await child.stdout.readexactly(HEADER))))

    compiling = {"digest": "1", "sources": {"email.html": "<p>{{ data.order }}</p>"}}
    rendering = {"digest": "1", "names": ["email.html"], "context": {"data": {"order": "42"}}}
    rendered = {"texts": {"email.html": "<p>42</p>", "email.text": "42"}}
    try:
        responses = [await response()]
        for request in (rendering, compiling, rendering, rendering):
            child.stdin.write(frame(request))
            responses.append(await response())
    finally:
        child.stdin.close()
        await child.wait()
    assert all(response.pop("cpu_seconds", 0) >= 0 for response in responses)
    assert responses == [{"ready": True}, {"unknown": True}, {"compiled": True}, rendered, rendered]


async def test_a_child_lets_the_worker_go_first() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "activities.rendering.sandbox.child", str(256 * 1024 * 1024), "60"),
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout
    await child.stdout.readexactly(HEADER)  # it is ready
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(own + NICENESS, 19)
    child.stdin.close()
    await child.wait()


async def test_closing_ends_the_children(tenants: TenantRenderer) -> None:
    await tenants.check({"sms.text": "x"})
    (pid,) = tenants.pids
    await tenants.close()
    await ended(pid)
    assert tenants.pids == []


async def test_a_killed_worker_leaves_no_child_behind() -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout
    pid = int(await worker.stdout.readline())
    worker.kill()
    await worker.wait()
    await ended(pid)


async def test_a_tenants_template_that_fails_defers_the_delivery(tenants: TenantRenderer) -> None:
    renderer = Renderer(None, tenants=tenants)
    channel = EmailChannel(SmtpPool("127.0.0.1", 1), renderer, sender="bell@example.net")
    outcome = await channel.attempt(send_request(with_templates(EMAIL, email_text="{{ 'a' * 200000000 }}")))
    assert outcome.kind is OutcomeKind.DEFERRED
    assert outcome.reason == "template email.text line 1: too large: a value of more than 524,288 characters"


async def test_a_tenant_whose_templates_always_time_out_does_not_hold_up_others() -> None:
    tenants = TenantRenderer(processes=2, timeout=0.3)
    endless = [{"sms.text": "{% for i in range(90000) %}{{ range(9) | sum }}{% endfor %}" + str(n)} for n in range(4)]
    try:
        await tenants.render({"sms.text": "x"}, ["sms.text"], {}, tenant="quiet")
        loud = [asyncio.create_task(tenants.render(each, ["sms.text"], {}, tenant="loud")) for each in endless]
        await asyncio.sleep(0)
        for number in range(20):
            sources = {"sms.text": "{{ data }}"}
            assert await tenants.render(sources, ["sms.text"], {"data": number}, tenant="quiet") == {
                "sms.text": str(number)
            }
            assert number or not all(each.done() for each in loud)
        assert all(isinstance(each, TemplateInvalid) for each in await asyncio.gather(*loud, return_exceptions=True))
    finally:
        await tenants.close()
    assert tenants.pids == []


async def test_a_delivery_whose_tenant_gets_no_turn_is_deferred_and_others_are_rendered() -> None:
    tenants = TenantRenderer(processes=2, timeout=30, patience=0.01)
    try:
        await tenants._slots.acquire("busy")
        with pytest.raises(TemplateInvalid, match=r"^template waited too long: no turn within 0\.01 s$"):
            await tenants.render({"sms.text": "x"}, ["sms.text"], {}, tenant="busy")
        assert await tenants.render({"sms.text": "x"}, ["sms.text"], {}, tenant="quiet") == {"sms.text": "x"}
        tenants._slots.release("busy")
        assert await tenants.render({"sms.text": "x"}, ["sms.text"], {}, tenant="busy") == {"sms.text": "x"}
    finally:
        await tenants.close()
