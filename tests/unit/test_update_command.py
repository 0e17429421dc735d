"""`subscriptions update` against a real SQLite registry: single fields from options, merge patches from files, refusals."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bellwire.errors import SubscriptionChanged
from bellwire.registry import Registry
from bellwire.registry.subscriptions import SubscriptionContext
from bellwire.service.settings import Settings
from bellwire.subscriptions import SubscriptionState
from bellwire.targets.stored_secret import HIDDEN
from starter.cli.main import main
from starter.operations.subscribers.updating import read_change, update_subscriptions
from tests.certificates import Authority
from tests.factories import subscription
from tests.unit.test_cli import errors_of, output_of, registry_url

__all__ = ["registry_url"]

T = TypeVar("T")
UPDATE = ["subscriptions", "update"]
HOOK = {
    "channel": "webhook",
    "url": "https://app.example/hooks",
    "headers": {"X-Api-Key": "k1", "x-other": "k2"},
    "timeout": 5,
}


@pytest.fixture
def url(registry_url: str) -> str:
    """A registry with one webhook, one mail and one SMS subscription."""

    async def store(registry: Registry) -> None:
        await registry.subscriptions.create(subscription(HOOK, id="hook", rate_limit=2.0, retry_schedule=[5]))
        await registry.subscriptions.create(subscription({"channel": "email", "to": "ann@example.com"}, id="mail"))
        await registry.subscriptions.create(subscription({"channel": "sms", "to": "+14155550123"}, id="sms"))

    within(registry_url, store)
    return registry_url


def within(url: str, work: Callable[[Registry], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        registry = await Registry.open(url)
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(run())


def stored(url: str, name: str) -> SubscriptionContext:
    return within(url, lambda registry: registry.subscriptions.context(name))


def file_of(tmp_path: Path, value: object) -> str:
    file = tmp_path / "change.json"
    file.write_text(json.dumps(value))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["hook", "--webhook", "https://new.example/hooks"], {"target": {**HOOK, "url": "https://new.example/hooks"}}),
        (["hook", "--header", "x-api-key:k3"], {"target": {**HOOK, "headers": {"X-Api-Key": "k3", "x-other": "k2"}}}),
        (["hook", "--header", "new:k3"], {"target": {**HOOK, "headers": {**HOOK["headers"], "new": "k3"}}}),  # type: ignore[dict-item]
        (["hook", "--clear", "headers", "--header", "new:k3"], {"target": {**HOOK, "headers": {"new": "k3"}}}),
        (["hook", "--timeout", "9s", "--format", "standard"], {"target": {**HOOK, "timeout": 9, "format": "standard"}}),
        (["hook", "--clear", "timeout"], {"target": {**HOOK, "timeout": None}}),
        (["hook", "--type", "a", "--type", "b.*"], {"types": ["a", "b.*"]}),
        (["hook", "--filter", '{"prefix": {"source": "/x"}}'], {"filters": [{"prefix": {"source": "/x"}}]}),
        (["hook", "--retry", "1s,2m"], {"retry_schedule": [1, 120]}),
        (["hook", "--retry", "none"], {"retry_schedule": []}),
        (["hook", "--clear", "retry", "--clear", "rate-limit"], {"retry_schedule": None, "rate_limit": None}),
        (["mail", "--email", "bob@example.com"], {"target": {"channel": "email", "to": "bob@example.com"}}),
        (
            ["mail", "--email", "a@example.com", "--email", "b@example.com", "--attachments"],
            {"target": {"channel": "email", "to": ["a@example.com", "b@example.com"], "attachments": True}},
        ),
        (["mail", "--template", "order.paid", "--locale", "zh-CN"], {"template": "order.paid", "locale": "zh-CN"}),
        (["sms", "--max-segments", "2"], {"target": {"channel": "sms", "to": "+14155550123", "max_segments": 2}}),
    ],
)
def test_an_option_changes_its_field_and_nothing_else(
    arguments: list[str], fields: dict[str, Any], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, secrets, _ = stored(url, arguments[0])
    shown = output_of([*UPDATE, *arguments], capsys)
    after, secrets_after, _ = stored(url, arguments[0])
    expected = type(before).model_validate({**before.model_dump(by_alias=True), **fields})
    assert after.model_copy(update={"version": 1, "updated_at": None}) == expected
    assert (after.version, secrets_after, shown["version"]) == (2, secrets, 2)


def test_the_client_certificate_is_replaced_and_cleared(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "client.pem"
    file.write_text(Authority().certificate("acme"))
    shown = output_of([*UPDATE, "hook", "--client-certificate", str(file)], capsys)
    assert shown["target"]["client_certificate"] == HIDDEN
    assert shown["target"]["url"] == HOOK["url"]
    assert output_of([*UPDATE, "hook", "--clear", "client-certificate"], capsys)["target"]["client_certificate"] is None


def test_what_show_prints_can_be_edited_and_given_back(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = output_of(["subscriptions", "show", "hook"], capsys)
    assert shown["target"]["headers"] == {"X-Api-Key": HIDDEN, "x-other": HIDDEN}
    shown["locale"] = "de"
    shown["target"]["headers"]["x-other"] = "k9"
    file = file_of(tmp_path, shown)
    output_of([*UPDATE, "hook", "--file", file], capsys)
    after = stored(url, "hook").subscription
    target = after.target.model_dump()
    assert {name: value.get_secret_value() for name, value in target["headers"].items()} == {
        "X-Api-Key": "k1",
        "x-other": "k9",
    }
    assert (after.locale, after.version) == ("de", 2)
    # The file names the version that it was made from.
    assert main([*UPDATE, "--file", file]) == 1
    assert "hook is at version 2, not 1; read it again" in capsys.readouterr().err


def test_a_file_clears_fields_with_null_and_merges_the_target(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = {"rate_limit": None, "target": {"headers": {"x-other": None, "X-API-KEY": "k3"}, "timeout": None}}
    output_of([*UPDATE, "hook", "--file", file_of(tmp_path, change)], capsys)
    after = stored(url, "hook").subscription
    assert (after.rate_limit, after.retry_schedule) == (None, (5.0,))
    target = after.target.model_dump()
    assert (list(target["headers"]), target["timeout"], target["url"]) == (["X-Api-Key"], None, HOOK["url"])


def test_many_are_updated_from_one_file_or_none(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [{"id": "hook", "locale": "fr"}, {"id": "mail", "locale": "de"}]
    bad = [*good, {"id": "sms", "locale": "?"}, {"id": "sms2"}]
    assert main([*UPDATE, "--file", file_of(tmp_path, bad)]) == 1
    assert "no subscription" in capsys.readouterr().err
    lines = errors_of([*UPDATE, "--file", file_of(tmp_path, bad[:-1])], capsys)
    assert [line[: len("error: item 3: locale")] for line in lines] == ["error: item 3: locale"]
    assert stored(url, "hook").subscription.version == 1
    assert [each["locale"] for each in output_of([*UPDATE, "--file", file_of(tmp_path, good)], capsys)] == ["fr", "de"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["hook"], "update: give what to change, or --file"),
        ([], "ID: give the subscription's id, or --file"),
        (["hook", "--email", "ann@example.com"], "target.channel: is webhook, and a subscription keeps its channel"),
        (
            ["hook", "--webhook", "https://a.example", "--sms", "+14155550123"],
            "target: gives options of sms and webhook",
        ),
        (["hook", "--webhook", "http://app.example"], "target.url: http is not allowed here"),
        (["hook", "--webhook", "https://app.example:22"], "target.url: port 22 is not one of 80, 443"),
        (["hook", "--handshake"], "target.handshake: the handshake needs an origin"),
        (["mail", "--email", "ann"], "is not an email address"),
        (["mail", "--template", "nowhere"], "template: no template nowhere exists for email"),
        (["hook", "--type", "a*b"], "types.0: is not a valid pattern"),
        (["hook", "--locale", "en", "--file", "x.json"], "--file: cannot be combined with other options"),
        (["hook", "--clear", "url"], "'url'"),
    ],
)
def test_a_bad_change_is_refused_with_its_field_and_not_made(
    arguments: list[str], named: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of([*UPDATE, *arguments], capsys)
    assert len(lines) == 1
    assert named in lines[0]
    assert {each.version for each in within(url, lambda registry: registry.subscriptions.list())} == {1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tenant": "other"}, "tenant: is acme and cannot be updated; create a new subscription"),
        ({"state": "paused"}, "state: is active and cannot be updated; use `subscriptions pause`"),
        ({"id": "other"}, "id: must be hook or left out"),
        ({"secret": "whsec_x"}, "secret: cannot be updated; use `subscriptions rotate`"),
        ({"version": "1"}, "version: must be a number"),
        ({"colour": "red"}, "colour: is not a known field"),
        ({"target": None}, "target: is missing"),
        ({"target": {"channel": "email", "to": "ann@example.com"}}, "target.channel: is webhook"),
        ({"target": {"headers": {"x-new": HIDDEN}}}, "target.headers: is hidden by stars, and no value is stored"),
        ({"target": {"client_certificate": HIDDEN}}, "target.client_certificate: is hidden by stars"),
        ({"types": None}, "types: is missing"),
        ({"templates": {"webhook.json": "{% if %}"}}, "templates: template webhook.json line 1"),
        ([], "is an empty array"),
        ([{"id": "hook"}, {"id": "mail"}], "holds 2 subscriptions"),
        (7, "is not a JSON object"),
    ],
)
def test_a_bad_change_in_a_file_is_refused(
    change: object, named: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of([*UPDATE, "hook", "--file", file_of(tmp_path, change)], capsys)
    assert len(lines) == 1
    assert named in lines[0]
    assert stored(url, "hook").subscription.version == 1


def test_if_version_refuses_a_change_to_another_version(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of([*UPDATE, "hook", "--locale", "de", "--if-version", "1"], capsys)["version"] == 2
    assert main([*UPDATE, "hook", "--locale", "fr", "--if-version", "1"]) == 1
    assert "hook is at version 2, not 1" in capsys.readouterr().err
    assert stored(url, "hook").subscription.locale == "de"


def test_a_change_that_changes_nothing_is_no_new_version(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*UPDATE, "hook", "--locale", "en", "--header", "x-api-key:k1"]) == 0
    assert "has these fields already; it stays at version 1" in capsys.readouterr().out
    assert stored(url, "hook").subscription.updated_at is None


def test_an_unknown_or_erased_subscription_is_not_updated(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*UPDATE, "nobody", "--locale", "de"]) == 1
    assert "no subscription" in capsys.readouterr().err
    assert main(["erase", "ann@example.com", "--grace", "0s"]) == 0
    capsys.readouterr()
    lines = errors_of([*UPDATE, "mail", "--email", "bob@example.com"], capsys)
    assert lines == ["error: target: the recipient was erased; create a new subscription with another id"]


def test_a_disabled_subscription_stays_disabled_and_the_command_says_so(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    within(
        url, lambda registry: registry.subscriptions.set_state("hook", SubscriptionState.DISABLED, reason="HTTP 410")
    )
    assert main([*UPDATE, "hook", "--webhook", "https://new.example/"]) == 0
    out, err = capsys.readouterr()
    assert "hook is updated, and is now at version 3" in out
    assert "hook is disabled still: `subscriptions resume hook`" in err
    assert stored(url, "hook").subscription.state is SubscriptionState.DISABLED


async def test_two_operators_who_change_different_fields_at_once_lose_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.read()
    registry = await Registry.open(url)
    fields: list[dict[str, Any]] = [{"locale": "de"}, {"rate_limit": 7.0}, {"retry_schedule": [1]}, {"types": ["a"]}]
    await asyncio.gather(
        *(update_subscriptions(registry, [read_change(change, subscription_id="hook")], settings) for change in fields)
    )
    after = await registry.subscriptions.get("hook")
    assert (after.locale, after.rate_limit, after.retry_schedule, after.types) == ("de", 7.0, (1.0,), ("a",))
    assert after.version == 1 + len(fields)
    with pytest.raises(SubscriptionChanged):
        await update_subscriptions(registry, [read_change({"id": "hook", "version": 4, "locale": "fr"})], settings)
    await registry.close()
