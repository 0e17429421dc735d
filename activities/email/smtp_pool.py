"""SmtpPool: a pool of connections to one mail relay.

A connection carries one mail at a time, and opening one costs as much as sending a mail, with TLS more. So connections
stay open between mails. The pool replaces them before the relay closes them: after a number of mails or seconds, or when
they no longer respond.
"""

import asyncio
import ssl
import time

import aiosmtplib
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from activities.email.transcript import Transcript
from activities.sending.exchanges import note_exchange

#: Idle seconds after which a connection is checked with NOOP before it is used.
NOOP_AFTER = 5.0
#: Idle seconds after which a connection is replaced without a check; many relays hang up after 60 to 300.
MAX_IDLE = 45.0
#: Lifetime of a connection in seconds, so that changes of DNS and of a load-balanced relay take effect.
MAX_AGE = 600.0
#: Mails per connection; relays commonly refuse more than 100.
MAX_MAILS = 100
#: Timeout of QUIT in seconds.
QUIT_SECONDS = 2.0

_SECURITY = ("none", "starttls", "tls")


class ReplyLost(Exception):
    """The connection failed after DATA, before the relay's reply. The relay may have accepted the mail."""


class NoRelayAvailable(Exception):
    """The circuits of all relays are open, so the mail was not sent."""


class _Connection:
    """One SMTP session with the relay."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client = client
        self.mails = 0
        self.opened_at = self.used_at = time.monotonic()

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Send one mail in one envelope and return the reply. Leaves the connection ready for the next mail, or closed."""
        client, transcript = self.client, Transcript(sender, recipient, mail)
        try:
            options, encoding = self._options(recipient, mail)
            note_exchange(lambda: transcript.exchange)
            transcript.sends()
            transcript.got(*await client.mail(sender, options=options))
            transcript.sends()
            transcript.got(*await self._rcpt(recipient, encoding))
            transcript.sends()
            reply = await self._data(mail)
            transcript.got(*reply)
        except SMTPNotSupported:
            raise
        except SMTPResponseException as error:
            transcript.got(error.code, error.message)
            await self._reset(error)
            raise
        except BaseException:
            client.close()
            raise
        self.mails += 1
        self.used_at = time.monotonic()
        return f"{reply.code} {reply.message}"

    async def _rcpt(self, recipient: str, encoding: str) -> aiosmtplib.SMTPResponse:
        try:
            return await self.client.rcpt(recipient, encoding=encoding)
        except SMTPRecipientRefused as error:
            if _is_positive(error):
                return aiosmtplib.SMTPResponse(error.code, error.message)
            raise

    async def _data(self, mail: bytes) -> aiosmtplib.SMTPResponse:
        """Send DATA and the mail. Raises SMTPDataError for a 4yz or 5yz reply, and ReplyLost if there is no valid reply."""
        try:
            return await self.client.data(mail)
        except SMTPDataError as error:
            if error.code >= 400:
                raise
            if _is_positive(error):
                return aiosmtplib.SMTPResponse(error.code, error.message)
            self.client.close()
            raise ReplyLost from error
        except (SMTPException, OSError) as error:
            self.client.close()
            raise ReplyLost from error

    def _options(self, recipient: str, mail: bytes) -> tuple[list[str], str]:
        options = [f"SIZE={len(mail)}"] if self.client.supports_extension("size") else []
        if recipient.isascii():
            return options, "ascii"
        if not self.client.supports_extension("smtputf8"):
            raise SMTPNotSupported("The address is not ASCII and the relay does not offer SMTPUTF8 (RFC 6531).")
        return [*options, "SMTPUTF8", "BODY=8BITMIME"], "utf-8"

    async def _reset(self, error: SMTPResponseException) -> None:
        """Reset the session after a refusal, so that it can carry the next mail. Close it after 421 or an invalid reply."""
        self.used_at = time.monotonic()
        if not 400 <= error.code < 600 or error.code == 421:
            self.client.close()
            return
        try:
            await self.client.rset()
        except (SMTPException, OSError):
            self.client.close()


class SmtpPool:
    """At most `connections` connections to one relay. Further mails wait for a free connection.

    `security`: "none", "starttls" (required, not opportunistic) or "tls" (from the first byte).
    `timeout`: seconds for each step: connecting, the TLS handshake, each reply.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: str = "none",
        username: str | None = None,
        password: str | None = None,
        verify: bool = True,
        connections: int = 10,
        timeout: float = 30.0,
        noop_after: float = NOOP_AFTER,
        max_idle: float = MAX_IDLE,
        max_age: float = MAX_AGE,
        max_mails: int = MAX_MAILS,
    ) -> None:
        if security not in _SECURITY:
            raise ValueError(f"security: {security!r} is not one of {', '.join(_SECURITY)}")
        self._host, self._port, self._security = host, port, security
        self._username, self._password = username, password
        self._timeout = timeout
        self._noop_after, self._max_idle, self._max_age, self._max_mails = noop_after, max_idle, max_age, max_mails
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._local_hostname: str | None = None
        self._tls = _tls_context(verify=verify) if security != "none" else None

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Send one mail in one envelope and return the relay's reply, such as "250 2.0.0 OK queued as 4F1".

        Raises aiosmtplib's exceptions and OSError if the relay did not accept the mail, ReplyLost if that is unknown.
        """
        async with self._slots:
            idle = await self._usable_idle()
            if idle is not None:
                try:
                    return await self._send_over(idle, sender, recipient, mail)
                except SMTPServerDisconnected:
                    pass  # the relay hung up while the connection was idle, so it has not got the mail
                except SMTPResponseException as error:
                    if error.code != 421 or isinstance(error, SMTPDataError):
                        raise  # a relay ends a session with 421, for example after its limit of mails
            return await self._send_over(await self._open(), sender, recipient, mail)

    async def close(self) -> None:
        """Close all idle connections with QUIT."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection) for connection in idle))

    async def _send_over(self, connection: _Connection, sender: str, recipient: str, mail: bytes) -> str:
        try:
            return await connection.send(sender, recipient, mail)
        finally:
            if connection.client.is_connected:
                self._idle.append(connection)

    async def _usable_idle(self) -> _Connection | None:
        """The most recently used idle connection that still responds; None if there is none."""
        while self._idle:
            connection = self._idle.pop()
            now = time.monotonic()
            idle_seconds = now - connection.used_at
            if not connection.client.is_connected:
                continue
            if (
                idle_seconds > self._max_idle
                or now - connection.opened_at > self._max_age
                or connection.mails >= self._max_mails
            ):
                await _quit(connection)
                continue
            if idle_seconds > self._noop_after and not await _responds(connection):
                continue
            return connection
        return None

    async def _open(self) -> _Connection:
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            local_hostname=self._local_hostname,
            timeout=self._timeout,
            use_tls=self._security == "tls",
            start_tls=self._security == "starttls",
            tls_context=self._tls,
        )
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await _greet(client)
        self._local_hostname = client.local_hostname  # aiosmtplib looks it up in DNS; do so once
        return _Connection(client)


def _is_positive(error: SMTPResponseException) -> bool:
    """Whether the relay has accepted, such as with 251, "will forward": aiosmtplib takes few codes for success, but the first
    digit decides (RFC 5321 §4.2.1).
    """
    return 200 <= error.code < 300


def _tls_context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _greet(client: aiosmtplib.SMTP) -> None:
    """Send EHLO, which lists the relay's extensions; HELO to a relay without EHLO."""
    try:
        try:
            await client.ehlo()
        except SMTPHeloError:
            await client.helo()
    except BaseException:
        client.close()
        raise


async def _responds(connection: _Connection) -> bool:
    try:
        await connection.client.noop()
    except (SMTPException, OSError):
        connection.client.close()
        return False
    except BaseException:
        connection.client.close()
        raise
    return True


async def _quit(connection: _Connection) -> None:
    try:
        await connection.client.quit(timeout=QUIT_SECONDS)
    except (SMTPException, OSError):
        pass  # the connection is closed anyway
    finally:
        connection.client.close()
