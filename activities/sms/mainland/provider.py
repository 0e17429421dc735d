"""MainlandProvider: what sending by Aliyun and by Tencent Cloud have in common.

An SMS becomes a template of the provider. Neither provider deduplicates, so an SMS whose response was lost is looked for among
those that the provider lists.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import aiohttp

from activities.providers.http import NotSent, ProviderResponse, ResponseLost, limits
from activities.sms.mainland.config import DEFAULT, AliyunConfig, NamedTemplate, OrderedTemplate, TencentConfig
from activities.sms.mainland.meanings import AMBIGUOUS, CodeMeaning, reason_of, refusal
from activities.sms.mainland.parameters import Expression, MissingVariable, filled
from activities.sms.mainland.signatures import AccessKey
from activities.sms.providers import SendResult, Sms, unknown_result, unreachable
from bellwire.deliveries import OutcomeKind

Config = TypeVar("Config", AliyunConfig, TencentConfig)


class Records(Protocol):
    """The part of the registry that knows the attempts."""

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]: ...
    async def ended_at(self, delivery_id: str, number: int) -> datetime | None: ...


class MainlandProvider(ABC, Generic[Config]):
    """One account. The caller closes `session`."""

    idempotent_resend = False

    def __init__(self, config: Config, session: aiohttp.ClientSession, records: Records, *, key: AccessKey) -> None:
        self.name = config.name
        self._config: Config = config
        self._session, self._records, self._key = session, records, key
        self._limits = limits(config.timeout)

    def sender_of(self, sms: Sms) -> str:
        """The sign name, which stands before the text."""
        template = self._template(sms)
        return (template and template.sign_name) or self._config.sign_name

    def cannot_send(self, sms: Sms) -> str | None:
        template = self._template(sms)
        if not sms.to.startswith(self._config.numbers):
            return "does not send to this country"
        if template is None:
            return "no template is mapped to this event type"
        try:
            values_of(template.params.values() if isinstance(template, NamedTemplate) else template.params, sms)
        except MissingVariable as error:
            return f"{error} is missing"
        return None

    async def send(self, sms: Sms) -> SendResult:
        try:
            response = await self._call("SendSms", self.message(sms))
        except NotSent as error:
            return unreachable(self.name, error)
        except ResponseLost as error:
            return unknown_result(f"{self.name}: {error}")
        return self._result(response)

    @abstractmethod
    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None: ...

    @abstractmethod
    def message(self, sms: Sms) -> dict[str, Any]:
        """The parameters of SendSms. The SMS is one that can be sent."""

    @abstractmethod
    def _result(self, response: ProviderResponse) -> SendResult:
        """The result of a response to SendSms."""

    @abstractmethod
    def _listed(self, response: ProviderResponse) -> tuple[str, Any, CodeMeaning]:
        """The code in a response to a query, the list of SMS in it, and what the code means if there is none."""

    @abstractmethod
    async def _call(self, action: str, parameters: Mapping[str, Any]) -> ProviderResponse:
        """Make a signed call. Raises NotSent or ResponseLost."""

    async def _query(self, action: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]] | SendResult:
        """The SMS on a page that the provider lists; a result if the query failed, which says nothing about the SMS."""
        try:
            response = await self._call(action, parameters)
        except (NotSent, ResponseLost) as error:
            return self._not_known(str(error))
        code, rows, meaning = self._listed(response)
        if response.status == 200 and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
        reason = reason_of(self.name, code)
        problem = reason if meaning.operator else None
        return unknown_result(f"while reconciling, {reason}", wait=response.retry_after, operator_problem=problem)

    async def _not_listed(self, sms: Sms) -> SendResult | None:
        """None if an SMS that the provider does not list was not sent; a result while it may still be listed.

        The attempt may have sent it until its end. One that is not recorded yet, since its worker was killed, has just ended.
        """
        now = datetime.now(UTC)
        ended = await self._records.ended_at(sms.delivery_id, sms.number) or now
        left = self._config.absent_after - (now - ended).total_seconds()
        return unknown_result(f"{self.name} does not list it yet", wait=left) if left > 0 else None

    def _not_known(self, why: str = "too many SMS to search") -> SendResult:
        return unknown_result(f"while reconciling, {self.name}: {why}")

    def _refusal(self, meaning: CodeMeaning, code: str, response: ProviderResponse) -> SendResult:
        now, wait = datetime.now(UTC), response.retry_after
        if response.status >= 500 and meaning.kind is OutcomeKind.REJECTED:
            meaning = AMBIGUOUS  # a server that fails says nothing about a number
        return refusal(meaning, self.name, code, response.shown, now=now, retry_after=wait)

    def _template(self, sms: Sms) -> NamedTemplate | OrderedTemplate | None:
        """The provider's template for an SMS; None if neither its own name nor `default` is mapped."""
        templates: Mapping[str, NamedTemplate | OrderedTemplate] = self._config.templates
        return templates.get(sms.template) or templates.get(DEFAULT)


def values_of(expressions: Iterable[Expression], sms: Sms) -> list[str]:
    """The values of parameters. Raises MissingVariable."""
    return [filled(each, sms.values, sms.text) for each in expressions]
