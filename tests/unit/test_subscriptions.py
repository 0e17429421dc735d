"""Subscriptions: invalid fields, and which events a subscription wants."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from bellwire.errors import SubscriptionInvalid, fields_in_error
from bellwire.filters import Exact
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel, EmailTarget, SmsTarget, WebhookTarget
from bellwire.targets.email import MAX_RECIPIENTS
from tests.factories import event, subscription

LONG = "a" * 300


def webhook(url: str) -> dict[str, str]:
    return {"channel": "webhook", "url": url}


def email(to: object) -> dict[str, object]:
    return {"channel": "email", "to": to}


def sms(to: object) -> dict[str, object]:
    return {"channel": "sms", "to": to}


GOOD: dict[str, Any] = {"types": ["order.*"], "target": email("ann@example.com")}


MISSPELT: dict[str, Any] = {"to": "ann@example.com", "attachment": True}
NOTHING: dict[str, Any] = {}


def refused(**fields: Any) -> str:
    fields_given = {"tenant": "acme", "types": ["order.*"], "target": webhook("https://app.example/hooks"), **fields}
    with pytest.raises(ValidationError) as error:
        Subscription.model_validate(fields_given)
    return fields_in_error(error.value)


@pytest.mark.parametrize(
    ("target", "field", "problem"),
    [
        (None, "target", "must be an object"),
        ("ann@example.com", "target", "must be an object"),
        ({}, "target", "channel"),
        ({"channel": "fax", "to": "1"}, "target", "write one of dingtalk, email, "),
        ({"channel": "email"}, "target.to", "is missing"),
        (email(5), "target.to", "an address, such as ann@example.com, or a list"),
        (email("ann"), "target.to", "is not an email address"),
        (email("Ann <ann@example.com>"), "target.to", "bare address"),
        (email("ann@example.com, bob@example.com"), "target.to", "is not an email address"),
        (email("ann@example.com\r\nBcc: eve@example.com"), "target.to", "is not an email address"),
        (email("ann@exa\u202emple.com"), "target.to", "is not an email address"),
        (email("ann@exam\u200bple.com"), "target.to", "is not an email address"),
        (email("\ud800@example.com"), "target.to", "lone surrogate"),
        (email(".ann@example.com"), "target.to", "is not an email address"),
        (email("ann@example..com"), "target.to", "is not an email address"),
        (email("ann@-example.com"), "target.to", "is not an email address"),
        (email("ann@[127.0.0.1]"), "target.to", "is not an email address"),
        (email("a" * 65 + "@example.com"), "target.to", "is not an email address"),
        (email("a@" + LONG), "target.to", "at most 254"),
        (email([]), "target.to", "at least 1"),
        (email(["ann@example.com", "bob"]), "target.to.1", "is not an email address"),
        (email(["ann@example.com"] * (MAX_RECIPIENTS + 1)), "target.to", "at most 20"),
        (sms("4155550123"), "target.to", "is not an E.164 number"),
        (sms("+0155550123"), "target.to", "is not an E.164 number"),
        (sms("+1 415 555 0123"), "target.to", "digits only"),
        (sms("+14155550123\n"), "target.to", "is not an E.164 number"),
        (sms("+\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668"), "target.to", "is not an E.164 number"),
        (sms("+" + "1" * 16), "target.to", "is not an E.164 number"),
        (sms(14155550123), "target.to", "must be a string"),
        ({**sms("+14155550123"), "sender": "+1"}, "target.sender", "is not a sender"),
        ({**sms("+14155550123"), "sender": "12 34"}, "target.sender", "is not a sender"),
        ({**sms("+14155550123"), "sender": "MG12" * 9}, "target.sender", "is not a sender"),
        ({**sms("+14155550123"), "sender": "Twelve chars"}, "target.sender", "up to 11"),
        ({**sms("+14155550123"), "sender": "Acme\n"}, "target.sender", "is not a sender"),
        ({**sms("+14155550123"), "max_segments": 0}, "target.max_segments", "greater than"),
        ({**sms("+14155550123"), "max_segments": 256}, "target.max_segments", "less than"),
        (webhook("app.example/hooks"), "target.url", "must be an http or https URL"),
        (webhook("ftp://app.example/hooks"), "target.url", "must be an http or https URL"),
        (webhook("https:///hooks"), "target.url", "must be an http or https URL with a host"),
        (webhook("https://:443/"), "target.url", "with a host"),
        (webhook("https://app.example/a b"), "target.url", "white space"),
        (webhook("https://app.example/\n"), "target.url", "control character"),
        (webhook("https://app.example\\@evil.example"), "target.url", "backslash"),
        (webhook("https://ann:pw@app.example"), "target.url", "contains credentials"),
        (webhook("https://app.example/#top"), "target.url", "has a fragment"),
        (webhook("https://app.example:99999"), "target.url", "is not a valid URL"),
        (webhook("https://app.example:x"), "target.url", "is not a valid URL"),
        (webhook("https://[::1"), "target.url", "is not a valid URL"),
        (webhook("https://app.example/" + "a" * 2048), "target.url", "at most 2048"),
        ({**webhook("https://app.example"), "method": "PUT"}, "target.method", "is not a known field"),
        ({**sms("+14155550123"), "url": "https://app.example"}, "target.url", "is not a known field"),
    ],
)
def test_an_invalid_target_is_refused_and_its_field_named(target: object, field: str, problem: str) -> None:
    text = refused(target=target)
    assert text.startswith(f"{field}: ")
    assert problem in text
    assert text.count("target") == 1


@pytest.mark.parametrize(
    ("field", "value", "named", "problem"),
    [
        ("id", "", "id", "1 to 63"),
        ("id", "a.b", "id", "dashes or underscores"),
        ("id", "_a", "id", "the first a letter or digit"),
        ("id", "a\n", "id", "1 to 63"),
        ("id", "a" * 64, "id", "1 to 63"),
        ("tenant", "a/b", "tenant", "1 to 63"),
        ("tenant", "*", "tenant", "a subscription has one tenant, so name it"),
        ("tenant", None, "tenant", "must be a string"),
        ("types", [], "types", "at least 1"),
        ("types", "order.*", "types", "must be a list"),
        ("types", ["order.*", "a*"], "types.1", "is not a valid pattern"),
        ("types", ["*"] * 101, "types", "at most 100"),
        ("filters", {"exact": {"type": "a"}}, "filters", "must be a list"),
        ("filters", [{"regex": "a"}], "filters.0", "is not a valid filter"),
        ("filters", [{"exact": {"type": "a"}}] * 101, "filters", "at most 100"),
        ("template", "a b", "template", "dotted words"),
        ("template", "../secrets", "template", "dotted words"),
        ("template", ".hidden", "template", "dotted words"),
        ("template", "a/b", "template", "dotted words"),
        ("template", "a" * 101, "template", "at most 100"),
        ("templates", {"sms.text": "x"}, "templates", "'sms.text' does not fit the target; write webhook.json"),
        ("templates", {"webhook.json": "x" * 65_537}, "templates", "65,537 bytes together, the limit is 65,536"),
        ("templates", {"webhook.json": "\ud800"}, "templates", "surrogate"),
        ("templates", {"webhook.json": 7}, "templates.webhook.json", "must be a string"),
        ("templates", {}, "templates", "at least 1"),
        ("locale", "e", "locale", "BCP 47"),
        ("locale", "en_US", "locale", "BCP 47"),
        ("locale", "../en", "locale", "BCP 47"),
        ("retry_schedule", 5, "retry_schedule", "must be a list"),
        ("retry_schedule", [5, 0], "retry_schedule.1", "greater than 0"),
        ("retry_schedule", [-1], "retry_schedule.0", "greater than 0"),
        ("retry_schedule", [float("nan")], "retry_schedule.0", "less than or equal"),
        ("retry_schedule", [float("inf")], "retry_schedule.0", "less than or equal"),
        ("retry_schedule", [7 * 86_400 + 1], "retry_schedule.0", "604800"),
        ("retry_schedule", [1] * 51, "retry_schedule", "at most 50"),
        ("rate_limit", 0, "rate_limit", "greater than or equal to 0.001"),
        ("rate_limit", -1, "rate_limit", "greater than or equal to 0.001"),
        ("rate_limit", 10_001, "rate_limit", "less than or equal to 10000"),
        ("rate_limit", float("nan"), "rate_limit", "less than or equal to 10000"),
        ("rate_limit", float("inf"), "rate_limit", "less than or equal to 10000"),
        ("rate_limit", "many", "rate_limit", "must be a number"),
        ("state", "off", "state", "'active', 'paused' or 'disabled'"),
        ("typ", ["order.*"], "typ", "is not a known field"),
    ],
)
def test_an_invalid_field_is_refused_and_named(field: str, value: object, named: str, problem: str) -> None:
    text = refused(**{field: value})
    assert text.startswith(f"{named}: ")
    assert problem in text


@pytest.mark.parametrize("missing", ["types", "target"])
def test_a_missing_field_is_named(missing: str) -> None:
    fields_given = {"tenant": "acme", "types": ["order.*"], "target": webhook("https://app.example/hooks")}
    del fields_given[missing]
    with pytest.raises(ValidationError) as error:
        Subscription.model_validate(fields_given)
    assert fields_in_error(error.value) == f"{missing}: is missing"


@pytest.mark.parametrize(
    "target",
    [
        email("ann@example.com"),
        email("o'brien+orders@example.co.uk"),
        email("\u738b@xn--fsqu00a.example"),
        email(["ann@example.com", "bob@example.com"]),
        sms("+14155550123"),
        sms("+4915112345678"),
        *({**sms("+4915112345678"), "sender": one} for one in ("+14155550100", "24555", "Acme Shop", "MG" + "1" * 32)),
        {**sms("+4915112345678"), "max_segments": 3},
        webhook("https://app.example"),
        webhook("http://127.0.0.1:8080/hooks?tenant=acme"),
        webhook("https://[::1]:8443/"),
        webhook("HTTPS://b\u00fccher.example/hooks"),
    ],
)
def test_valid_targets_are_restored_from_their_json(target: dict[str, Any]) -> None:
    created = subscription(target)
    assert created.target.model_dump(mode="json", exclude_unset=True) == target
    assert Subscription.model_validate_json(created.model_dump_json()) == created
    assert created.channel == target["channel"]


def test_targets_may_be_written_as_models() -> None:
    for target in (
        EmailTarget(to=("a@b.example", "c@d.example")),
        SmsTarget(to="+14155550123"),
        WebhookTarget(url="https://a.example"),
    ):
        assert Subscription(tenant="acme", types=("*",), target=target).target == target


def test_a_repeated_recipient_gets_one_mail() -> None:
    assert EmailTarget(to=("ann@example.com", "bob@example.com", "ann@example.com")).recipients == (
        "ann@example.com",
        "bob@example.com",
    )
    assert EmailTarget(to="ann@example.com").recipients == ("ann@example.com",)


@pytest.mark.parametrize(
    ("fields", "event_fields", "wanted"),
    [
        ({}, {}, True),
        ({}, {"tenant": "acme"}, True),
        ({}, {"tenant": "other"}, False),
        ({}, {"tenant": "*"}, True),
        ({}, {"tenant": None}, False),
        ({"tenant": "default"}, {"tenant": None}, True),
        ({"tenant": "default"}, {"tenant": "acme"}, False),
        ({"tenant": "ACME"}, {"tenant": "acme"}, False),
        ({"types": ["user.*"]}, {}, False),
        ({"types": ["user.*", "order.paid"]}, {}, True),
        ({"types": ["*"]}, {"type": "anything"}, True),
        ({"state": "paused"}, {}, False),
        ({"state": "disabled"}, {}, False),
        ({"filters": [{"exact": {"subject": "42"}}]}, {"subject": "42"}, True),
        ({"filters": [{"exact": {"subject": "42"}}]}, {"subject": "43"}, False),
        ({"filters": [{"prefix": {"source": "/shop"}}, {"exact": {"subject": "42"}}]}, {}, False),
    ],
)
def test_a_subscription_wants_events_of_its_tenant_types_and_filters(
    fields: dict[str, Any], event_fields: dict[str, Any], wanted: bool
) -> None:
    assert subscription(**fields).wants(event(**event_fields)) is wanted


def test_omitted_fields_have_defaults() -> None:
    one, other = subscription(), subscription()
    assert one.id != other.id
    assert one.id.startswith("sub_")
    assert Subscription(types=("*",), target=EmailTarget(to="ann@example.com")).tenant == "default"
    assert (one.filters, one.template, one.locale, one.retry_schedule) == ((), None, "en", None)
    assert one.rate_limit is None
    assert one.state is SubscriptionState.ACTIVE
    assert one.channel is Channel.WEBHOOK


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: WebhookTarget(url="ftp://app.example"), "url: must be an http or https URL"),
        (lambda: SmsTarget(to="0155"), "to: is not an E.164 number"),
        (
            lambda: EmailTarget(**MISSPELT),
            "attachment: is not a known field; did you mean attachments?",
        ),
        (lambda: Exact(exact={"Type": "a"}), "exact.Type: is not the name of an attribute"),
        (lambda: Subscription(**GOOD | {"tennant": "acme"}), "tennant: is not a known field; did you mean tenant?"),
        (lambda: Subscription(**GOOD | {"retry_schedule": (5, 0)}), "retry_schedule.1: must be greater than 0"),
        (lambda: Subscription(**GOOD | {"retry_schedule": "5s"}), "retry_schedule: must be a list"),
        (
            lambda: Subscription(**GOOD | {"filters": [{"exact": {"type": 1}}]}),
            "filters.0.exact.type: must be a string",
        ),
        (
            lambda: Subscription(**GOOD | {"target": {"channel": "webhook", "url": "https://a.example", "timeut": 5}}),
            "target.timeut: is not a known field; did you mean timeout?",
        ),
        (lambda: Subscription(**NOTHING), "types: is missing; target: is missing"),
    ],
)
def test_constructors_name_the_field_and_the_remedy(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(SubscriptionInvalid) as error:
        make()
    assert str(error.value).startswith(problem)
    assert "pydantic" not in str(error.value)
