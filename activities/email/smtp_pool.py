"""SmtpPool: a few connections to the mail relay, kept open between mails.

A connection carries one mail at a time, and opening one costs as much as sending a mail, with TLS more. So connections
are kept, and replaced before the relay tires of them: after so many mails or seconds, or once they no longer answer.
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
    SMTPResponseException,
    SMTPServerDisconnected,
)

#: Seconds of rest after which a connection is asked (NOOP) whether it still lives.
NOOP_AFTER = 5.0
#: Seconds of rest after which it is not asked but replaced; many relays hang up after 60 to 300.
MAX_IDLE = 45.0
#: Seconds that one connection is used in all, so that a change of DNS or of the relay's members arrives.
MAX_AGE = 600.0
#: Mails over one connection; relays commonly refuse more than 100.
MAX_MAILS = 100
#: Seconds to say goodbye in.
QUIT_SECONDS = 2.0

_SECURITY = ("none", "starttls", "tls")


class AnswerLost(Exception):
    """The relay was given the mail and no answer came, so it may have been accepted or not."""


class NoRelay(Exception):
    """The mail was given to nobody, since every relay has failed lately."""


class _Connection:
    """One conversation with the relay."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client = client
        self.mails = 0
        self.opened_at = self.used_at = time.monotonic()

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """One mail in one envelope; returns the relay's words. Leaves the connection ready for the next, or closed."""
        client = self.client
        try:
            options, encoding = self._options(recipient, mail)
            await client.mail(sender, options=options)
            await client.rcpt(recipient, encoding=encoding)
            reply = await self._data(mail)
        except SMTPNotSupported:
            raise
        except SMTPResponseException as error:
            await self._reset(error)
            raise
        except BaseException:
            client.close()
            raise
        self.mails += 1
        self.used_at = time.monotonic()
        return f"{reply.code} {reply.message}"

    async def _data(self, mail: bytes) -> aiosmtplib.SMTPResponse:
        """DATA and the mail. A clear refusal is an SMTPDataError; whatever else goes wrong here is an AnswerLost."""
        try:
            return await self.client.data(mail)
        except SMTPDataError as error:
            if error.code >= 400:
                raise
            self.client.close()
            raise AnswerLost from error
        except (SMTPException, OSError) as error:
            self.client.close()
            raise AnswerLost from error

    def _options(self, recipient: str, mail: bytes) -> tuple[list[str], str]:
        options = [f"SIZE={len(mail)}"] if self.client.supports_extension("size") else []
        if recipient.isascii():
            return options, "ascii"
        if not self.client.supports_extension("smtputf8"):
            raise SMTPNotSupported("The address is not ASCII and the relay does not offer SMTPUTF8 (RFC 6531).")
        return [*options, "SMTPUTF8", "BODY=8BITMIME"], "utf-8"

    async def _reset(self, error: SMTPResponseException) -> None:
        """End the refused envelope, so that the next one can begin. After 421 or nonsense there is no next one."""
        self.used_at = time.monotonic()
        if not 400 <= error.code < 600 or error.code == 421:
            self.client.close()
            return
        try:
            await self.client.rset()
        except (SMTPException, OSError):
            self.client.close()


class SmtpPool:
    """At most `connections` connections to one relay. Mails beyond that wait for one to become free.

    `security`: "none", "starttls" (required, not opportunistic) or "tls" (from the first byte).
    `timeout`: seconds for each step of a conversation: connecting, the handshake, each answer.
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
        self._resting: list[_Connection] = []
        self._local_hostname: str | None = None
        self._tls = _tls_context(verify=verify) if security != "none" else None

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Send one mail in one envelope; returns the relay's answer, "250 2.0.0 OK queued as 4F1".

        Raises aiosmtplib's exceptions and OSError if it was not accepted, AnswerLost if that is not known.
        """
        async with self._slots:
            resting = await self._awake()
            if resting is not None:
                try:
                    return await self._send_over(resting, sender, recipient, mail)
                except SMTPServerDisconnected:
                    pass  # it hung up while resting: nothing was handed over
                except SMTPResponseException as error:
                    if error.code != 421 or isinstance(error, SMTPDataError):
                        raise  # 421 is how a relay ends a conversation that it has had enough of
            return await self._send_over(await self._open(), sender, recipient, mail)

    async def close(self) -> None:
        """Say goodbye on all resting connections."""
        resting, self._resting = self._resting, []
        await asyncio.gather(*(_quit(connection) for connection in resting))

    async def _send_over(self, connection: _Connection, sender: str, recipient: str, mail: bytes) -> str:
        try:
            return await connection.send(sender, recipient, mail)
        finally:
            if connection.client.is_connected:
                self._resting.append(connection)

    async def _awake(self) -> _Connection | None:
        """The connection that was used last, if it still answers; None if there is none."""
        while self._resting:
            connection = self._resting.pop()
            now = time.monotonic()
            rested = now - connection.used_at
            if not connection.client.is_connected:
                continue
            if (
                rested > self._max_idle
                or now - connection.opened_at > self._max_age
                or connection.mails >= self._max_mails
            ):
                await _quit(connection)
                continue
            if rested > self._noop_after and not await _answers(connection):
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
        self._local_hostname = client.local_hostname  # found by a look-up in DNS; once is enough
        return _Connection(client)


def _tls_context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO, which tells what the relay offers; HELO for one that knows no EHLO."""
    try:
        try:
            await client.ehlo()
        except SMTPHeloError:
            await client.helo()
    except BaseException:
        client.close()
        raise


async def _answers(connection: _Connection) -> bool:
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
        pass  # it is leaving anyway
    finally:
        connection.client.close()
