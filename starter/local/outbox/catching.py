"""Catchers: a mail server and an SMS provider on this machine that keep what they get, and the pages that show it."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starter.local.outbox.messages import Caught, Kind, Outbox, mail
from starter.local.outbox.pages import serving_pages
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.twilio import FakeTwilio, Sent

#: Largest mail in bytes.
MAX_MAIL = 16 * 1024 * 1024
#: SMS that the provider remembers, to be reconciled.
MAX_SMS = 1000
#: The number that SMS come from.
SMS_SENDER = "+14155550100"
#: Variables with which someone has chosen another relay or provider.
_OWN_RELAY, _OWN_PROVIDER = ("BELLWIRE_SMTP_",), ("BELLWIRE_TWILIO_", "BELLWIRE_SMS_PROVIDERS")


@dataclass(frozen=True, kw_only=True)
class Catchers:
    """Running catchers."""

    outbox: Outbox
    #: The page.
    url: str
    smtp: Mailbox
    sms: FakeTwilio

    @property
    def webhooks(self) -> str:
        """The base URL of endpoints that accept everything; below it, /503 responds with that status."""
        return f"{self.url}hooks"

    def settings(self, given: Mapping[str, str]) -> dict[str, str]:
        """The worker's variables that lead to the catchers, except where the `given` ones name another server."""
        settings: dict[str, str] = {}
        if not any(name.startswith(_OWN_RELAY) for name in given):
            settings |= {"BELLWIRE_SMTP_HOST": self.smtp.host, "BELLWIRE_SMTP_PORT": str(self.smtp.port)}
        if not any(name.startswith(_OWN_PROVIDER) for name in given):
            settings |= {
                "BELLWIRE_TWILIO_ACCOUNT_SID": self.sms.account_sid,
                "BELLWIRE_TWILIO_AUTH_TOKEN": self.sms.auth_token,
                "BELLWIRE_TWILIO_SENDER": SMS_SENDER,
                "BELLWIRE_TWILIO_URL": self.sms.url,
            }
        return settings


@asynccontextmanager
async def catching(port: int) -> AsyncIterator[Catchers]:
    """Catchers, with the page at this port of the loopback address."""
    outbox = Outbox()
    async with (
        _CatchingMailbox(outbox) as smtp,
        _CatchingTwilio(outbox) as sms,
        serving_pages(outbox, port) as url,
    ):
        yield Catchers(outbox=outbox, url=url, smtp=smtp, sms=sms)


class _CatchingMailbox(Mailbox):
    def __init__(self, outbox: Outbox) -> None:
        super().__init__(size_limit=MAX_MAIL)
        self._outbox, self._numbers = outbox, itertools.count(1)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - of aiosmtpd
        self._outbox.add(mail(envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
        return f"250 2.0.0 OK queued as {next(self._numbers):06}"


class _CatchingTwilio(FakeTwilio):
    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def add_message(
        self, to: str, sender: str, body: str, *, created_at: datetime | None = None, callback: str | None = None
    ) -> Sent:
        sent = super().add_message(to, sender, body, created_at=created_at, callback=callback)
        del self.messages[:-MAX_SMS]
        self._outbox.add(Caught(kind=Kind.SMS, sender=sender, to=(to,), title=body[:80], text=body))
        return sent
