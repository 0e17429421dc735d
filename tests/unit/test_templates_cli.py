"""Templates on the command line: listed, previewed, and written by tenants."""

import json
import re
from pathlib import Path

import pytest

from bellwire.targets import SPECS
from bellwire.targets.sms_segments import segments
from starter.cli.main import main
from tests.unit.test_cli import GOOD, HOOK, MAIL, SUBSCRIBE, errors_of, output_of, registry_url, stored

__all__ = ["registry_url"]
#: The channels that have a built-in text for order.paid.
BUILT_IN = {"email.txt", "sms.txt", "chat.title.txt", "push.title.txt", "wechat.json"}
WITH_ORDERS = sorted(spec.channel for spec in SPECS.values() if BUILT_IN & {*spec.templates.values()})
ORDER = ["order.paid", "--data", '{"order": "42", "total": "19.90 EUR"}']


def test_templates_are_listed_and_previewed(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(output_of(["templates", "list"], capsys)["order.paid"]) == WITH_ORDERS
    texts = output_of(["templates", "preview", "order.paid", "--data", '{"order": "42"}'], capsys)
    assert texts.keys() == {"segments", "sent", *(name for spec in SPECS.values() for name in spec.templates)}
    assert texts["segments"] == segments(texts["sms.text"]).model_dump(mode="json")
    assert "42" in texts["email.subject"]
    assert texts["webhook.json"] is None
    assert main(["templates", "preview", "order.paid", "--data", '{"order": "42"}']) == 0
    assert re.search(r"segments: 1 \(GSM-7, \d+ of 160 places\)", capsys.readouterr().out)
    assert errors_of(["templates", "preview", "order.paid", "--locale", "!"], capsys)[0].startswith("error: locale:")


def test_an_operators_template_for_webhooks_is_listed_and_previewed(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "order.paid").mkdir(parents=True)
    (tmp_path / "mine" / "order.paid" / "webhook.json").write_text('{"order": {{ data.order | tojson }}}')
    monkeypatch.setenv("BELLWIRE_TEMPLATES", str(tmp_path / "mine"))
    assert sorted(output_of(["templates", "list"], capsys)["order.paid"]) == sorted([*WITH_ORDERS, "webhook"])
    assert output_of(["templates", "preview", *ORDER], capsys)["webhook.json"] == '{"order": "42"}'


LONG = "A4711" * 8
MAINLAND = """
[[aliyun]]
sign_name = "Shop"
access_key_id = "id"
access_key_secret = "BELLWIRE_SMS_SECRETS__X"
templates."order.paid" = { template = "SMS_1", params = { code = "{data.order}" } }

[[tencent]]
sign_name = "Shop"
secret_id = "id"
secret_key = "BELLWIRE_SMS_SECRETS__X"
app_id = "1400"
templates."order.paid" = { template = "1", params = ["{data.total}"] }
"""


def test_a_preview_shows_what_receivers_get_and_where_it_was_cut(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sms.toml").write_text(MAINLAND)
    monkeypatch.setenv("BELLWIRE_SMS_PROVIDERS", str(tmp_path / "sms.toml"))
    (tmp_path / "mine" / "order.paid").mkdir(parents=True)
    (tmp_path / "mine" / "order.paid" / "chat.txt").write_text("{{ data.order * 100 }}")
    monkeypatch.setenv("BELLWIRE_TEMPLATES", str(tmp_path / "mine"))
    order = ["templates", "preview", "order.paid", "--data", json.dumps({"order": f"{LONG}<!here>"})]
    sent = output_of(order, capsys)["sent"]
    assert sent["wechat"] == {
        "message": {**sent["wechat"]["message"], "thing1": {"value": "Order A4711A4711A47…"}},
        "cut": ["thing1.value"],
        "problem": None,
    }
    assert sent["slack"]["cut"] == ["text", "blocks.1.text.text"]
    assert "&lt;!here&gt;" in sent["slack"]["message"]["text"]
    assert (sent["push"]["message"]["title"], sent["push"]["cut"]) == (f"Order {LONG}<!here> is paid", [])
    assert {"dingtalk", "feishu", "teams", "telegram", "wecom"} <= sent.keys()
    assert json.loads(sent["sms"]["message"]["aliyun"]["TemplateParam"]) == {"code": f"{LONG}<!here>"}
    assert sent["sms"]["message"]["tencent"] == "data.total is missing"
    assert main(order) == 0
    assert "thing1.value (cut): Order A4711A4711A47…" in capsys.readouterr().out


def test_a_preview_says_why_nothing_is_sent(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "order.paid" / "wechat.json").write_text('{"number1": {{ data.order * 9 }}}')
    monkeypatch.setenv("BELLWIRE_TEMPLATES", str(tmp_path))
    problem = "number1 has more than the 32 characters that WeChat allows"
    assert (
        problem
        in output_of(["templates", "preview", *ORDER[:1], "--data", '{"order": "4711"}'], capsys)["sent"]["wechat"][
            "problem"
        ]
    )


def test_html_is_written_to_a_file(registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "mail.html"
    assert main(["templates", "preview", *ORDER, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert f"written to {page}" in out
    assert "<html" not in out
    assert page.read_text().startswith("<!doctype html>")
    assert "cannot be written" in errors_of(["templates", "preview", *ORDER, "--html", str(tmp_path)], capsys)[0]


def test_templates_of_a_tenant_are_stored_and_previewed_as_the_subscription_gets_them(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "subject").write_text("Thanks for {{ data.order }}")
    (tmp_path / "html").write_text("<p>{{ data.total }} <a href='javascript:x'>pay</a></p>")
    given = [
        "--own-template",
        f"email.subject={tmp_path / 'subject'}",
        "--own-template",
        f"email.html={tmp_path / 'html'}",
    ]
    made = output_of([*SUBSCRIBE, *MAIL, *given, "--id", "mine"], capsys)
    assert made["templates"]["email.subject"] == "Thanks for {{ data.order }}"
    assert stored(registry_url)[0].templates == made["templates"]
    texts = output_of(["templates", "preview", *ORDER, "--subscription", "mine"], capsys)
    assert (texts["email.subject"], texts["email.text"], texts["sms.text"]) == (
        "Thanks for 42",
        "19.90 EUR pay\n",
        None,
    )
    assert "<p>19.90 EUR <a>pay</a></p>" in texts["email.html"]
    assert main(["subscriptions", "show", "mine"]) == 0
    assert "email.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "source", "named"),
    [
        ("email.text", "ok\n{{ oops", "templates: template email.text line 2: "),
        ("email.html", "{{ data | nofilter }}", "templates: template email.html line 1: no filter named 'nofilter'"),
        (
            "email.html",
            "{% include '_layout.html' %}",
            "templates: template email.html line 1: include is not available",
        ),
        ("email.text", "x" * 65_537, "templates: have 65,537 bytes together"),
        (
            "sms.text",
            "x",
            "templates: 'sms.text' does not fit the target; write email.subject or email.text or email.html",
        ),
    ],
)
def test_a_template_that_does_not_compile_is_refused_and_nothing_is_stored(
    name: str, source: str, named: str, registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "template").write_text(source)
    (line,) = errors_of([*SUBSCRIBE, *MAIL, "--own-template", f"{name}={tmp_path / 'template'}"], capsys)
    assert named in line
    assert stored(registry_url) == []


@pytest.mark.parametrize("option", ["email.text", "email.text=", "=x", "email.text=nowhere.txt"])
def test_an_option_that_is_not_name_and_file_is_refused(
    option: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(errors_of([*SUBSCRIBE, *MAIL, "--own-template", option], capsys)) == 1


def test_templates_in_a_file_of_subscriptions_are_checked_and_each_bad_one_is_named(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = {**GOOD, "target": {"channel": "webhook", "url": HOOK[1]}}
    bad = {**hook, "templates": {"webhook.json": "{{ a"}}
    file = tmp_path / "many.json"
    file.write_text(json.dumps([{**hook, "templates": {"webhook.json": "{}"}}, bad, GOOD, bad]))
    lines = errors_of(["subscribe", "--file", str(file)], capsys)
    assert [line[: line.index(" line 1")] for line in lines] == [
        "error: item 2: templates: template webhook.json",
        "error: item 4: templates: template webhook.json",
    ]
    assert stored(registry_url) == []
