"""Options that `subscribe` and `subscriptions update` share, and how they are read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.targets import WebhookFormat
from starter.cli.input.documents import read_text, read_value
from starter.cli.input.durations import parse_duration, parse_schedule
from starter.operations.problems import InputInvalid

Types = Annotated[list[str] | None, typer.Option("--type", help="Event type: order.paid, order.* or *. Repeatable.")]
Email = Annotated[list[str] | None, typer.Option(help="Deliver by email to this address. Repeatable.")]
Sms = Annotated[str | None, typer.Option(help="Deliver by SMS to this number: +14155550123.")]
SmsSender = Annotated[
    str | None,
    typer.Option(help="Sender of the SMS: a number, a name or a messaging service (MG…) of the operator."),
]
MaxSegments = Annotated[
    int | None, typer.Option(help="Maximum segments of one SMS; a longer text is rejected before it is sent.")
]
Webhook = Annotated[str | None, typer.Option(help="Deliver by webhook to this https URL.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help='Filter as JSON: {"prefix": {"source": "/shop"}}, {"sql": "hop > 5"} or {"data": {"status": ["paid"]}}. Repeatable.',
    ),
]
Template = Annotated[str | None, typer.Option(help="Template; by default the one named like the event type.")]
OwnTemplates = Annotated[
    list[str] | None,
    typer.Option(
        "--own-template",
        metavar="NAME=FILE",
        help="A template that the tenant wrote: email.subject=FILE. Repeatable.",
    ),
]
Locale = Annotated[str | None, typer.Option(help="Language of the text, such as en or zh-CN.")]
Retry = Annotated[str | None, typer.Option(help="Delays before further attempts: 5s,5m,1h; none for one attempt only.")]
RateLimit = Annotated[
    float | None, typer.Option(metavar="PER_SECOND", help="Maximum deliveries per second; by default no limit.")
]
Format = Annotated[
    WebhookFormat | None, typer.Option("--format", help="Body of the webhook; by default a whole CloudEvent.")
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="Header of the webhook. Repeatable.")
]
Timeout = Annotated[str | None, typer.Option(help="Timeout of one webhook request, 1s to 30s.")]
ClientCertificate = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM of a client certificate and its key, shown to the endpoint."),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that are set."""
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def read_fields(
    *,
    types: list[str] | None,
    filters: list[str] | None,
    template: str | None,
    own_templates: list[str] | None,
    locale: str | None,
    retry: str | None,
    rate_limit: float | None,
) -> dict[str, Any]:
    """The fields of a subscription, apart from its target, that these options set. Raises InputInvalid."""
    return given(
        types=types,
        filters=[read_value("--filter", text) for text in filters or ()],
        template=template,
        templates=_read_templates(own_templates) if own_templates else None,
        locale=locale,
        retry_schedule=None if retry is None else parse_schedule(retry),
        rate_limit=rate_limit,
    )


def read_target(
    *,
    email: list[str] | None,
    attachments: bool | None,
    sms: str | None,
    sms_sender: str | None,
    max_segments: int | None,
    webhook: str | None,
    handshake: bool | None,
    form: WebhookFormat | None,
    headers: list[str] | None,
    timeout: str | None,
    client_certificate: Path | None,
) -> dict[str, dict[str, Any]]:
    """By channel, the fields of a target that these options set; channels without any are left out. Raises InputInvalid."""
    return given(
        email=given(to=email and (email[0] if len(email) == 1 else email), attachments=attachments),
        sms=given(to=sms, sender=sms_sender, max_segments=max_segments),
        webhook=given(
            url=webhook,
            handshake=handshake,
            format=form,
            headers=_read_headers(headers or ()),
            timeout=None if timeout is None else parse_duration("--timeout", timeout),
            client_certificate=None if client_certificate is None else read_text(str(client_certificate)),
        ),
    )


def _read_templates(named: list[str]) -> dict[str, str]:
    """Templates from NAME=FILE. Raises InputInvalid."""
    templates: dict[str, str] = {}
    for text in named:
        name, separator, file = text.partition("=")
        if not separator or not file:
            raise InputInvalid(f"{text!r} is not NAME=FILE, such as email.subject=subject.txt", field="--own-template")
        if name in templates:
            raise InputInvalid(f"{name} is given twice", field="--own-template")
        templates[name] = read_text(file)
    return templates


def _read_headers(named: Iterable[str]) -> dict[str, str]:
    """Headers from NAME:VALUE. Raises InputInvalid, which repeats no value."""
    found: dict[str, str] = {}
    for each in named:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise InputInvalid("is not NAME:VALUE, such as x-api-key:abc", field="--header")
        if name.strip() in found:
            raise InputInvalid(f"{name.strip()[:100]} is given twice", field="--header", remedy="omit one of them")
        found[name.strip()] = value.strip()
    return found
