"""How an SMS becomes a template of the provider, and which SMS cannot."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from activities.sms.mainland.config import DEFAULT, AliyunConfig, NamedTemplate, OrderedTemplate, TencentConfig
from activities.sms.mainland.parameters import Expression, MissingVariable, filled
from activities.sms.providers import SendResult, Sms, unknown_result

Template = TypeVar("Template", NamedTemplate, OrderedTemplate)


class Records(Protocol):
    """The part of the registry that knows the attempts."""

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]: ...
    async def ended_at(self, delivery_id: str, number: int) -> datetime | None: ...


def template_of(templates: Mapping[str, Template], sms: Sms) -> Template | None:
    """The provider's template for an SMS; None if neither its own name nor `default` is mapped."""
    return templates.get(sms.template) or templates.get(DEFAULT)


def cannot_send(config: AliyunConfig | TencentConfig, sms: Sms) -> str | None:
    """Why the account can never send this SMS, without values; None if it can."""
    if not sms.to.startswith(config.numbers):
        return "does not send to this country"
    if isinstance(config, AliyunConfig):
        named = template_of(config.templates, sms)
        expressions = None if named is None else list(named.params.values())
    else:
        ordered = template_of(config.templates, sms)
        expressions = None if ordered is None else list(ordered.params)
    if expressions is None:
        return "no template is mapped to this event type"
    try:
        values_of(expressions, sms)
    except MissingVariable as error:
        return f"{error} is missing"
    return None


def values_of(expressions: list[Expression], sms: Sms) -> list[str]:
    """The values of parameters. Raises MissingVariable."""
    return [filled(each, sms.values, sms.text) for each in expressions]


async def not_listed(name: str, records: Records, sms: Sms, absent_after: float) -> SendResult | None:
    """None if an SMS that the provider does not list was not sent; a result while it may still be listed.

    The attempt may have sent it until its end. One that is not recorded yet, since its worker was killed, has just ended.
    """
    now = datetime.now(UTC)
    ended = await records.ended_at(sms.delivery_id, sms.number) or now
    left = absent_after - (now - ended).total_seconds()
    return unknown_result(f"{name} does not list it yet", wait=left) if left > 0 else None
