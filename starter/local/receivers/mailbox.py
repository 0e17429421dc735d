"""Mailbox: a real SMTP server that keeps the mail it receives, for the demo and tests. It relays nothing.

It runs in the event loop of its caller. `script` makes it refuse; `drop_after_data` makes it hang up without a reply.
"""

import asyncio
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

#: In `script`, `stall` and `drop_after_data`: any address.
ANY_ADDRESS = "*"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail as it arrived."""

    envelope_from: str
    #: The envelope's recipient: the first of `recipients`.
    to: str
    recipients: tuple[str, ...]
    subject: str
    text: str
    #: None: the mail has no HTML part.
    html: str | None
    message_id: str
    #: The first header of each name, decoded.
    headers: dict[str, str]
    raw: bytes


class Mailbox:
    """`async with Mailbox() as mailbox:` listens on `mailbox.host` and `mailbox.port` (0: a free port) until the block ends.

    `security` is "none", "starttls" or "tls", with a self-signed certificate. With `login` (user, password), mail is
    accepted after a login only, which needs starttls or tls.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        security: str = "none",
        login: tuple[str, str] | None = None,
        smtputf8: bool = True,
        size_limit: int = 2**25,
    ) -> None:
        self.host, self.port = host, port
        self.mails: list[Mail] = []
        #: Connections so far, and the maximum at one time.
        self.connections = 0
        self.max_connections = 0
        #: Seconds before the reply to each accepted mail.
        self.latency = 0.0
        self.login = login
        self._security, self._smtputf8, self._size_limit = security, smtputf8, size_limit
        self._replies: dict[tuple[str, str], deque[str]] = defaultdict(deque)
        self._repeated: dict[tuple[str, str], str] = {}
        self._drops: dict[str, int] = defaultdict(int)
        self._open: set[_Conversation] = set()
        self.stalled = asyncio.Event()
        self._silent: set[tuple[str, str]] = set()
        self._idle = asyncio.Event()  # no client is connected
        self._idle.set()
        self._arrivals = asyncio.Condition()
        self._tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None

    def script(self, address: str, *replies: str, repeat: bool = False, at: str = "RCPT") -> None:
        """Send these replies ("451 4.7.1 try later") in turn, then accept, or with `repeat` keep sending the last one.

        `at` is RCPT or DATA (the reply after the final dot) with a recipient's address, or MAIL with the sender's.
        """
        self._replies[at, address] = deque(replies)
        self._repeated.pop((at, address), None)
        if repeat and replies:
            self._repeated[at, address] = replies[-1]

    def drop_after_data(self, address: str, times: int = 1) -> None:
        """Hang up after the final dot, without a reply. Those mails are not kept."""
        self._drops[address] = times

    def stall(self, address: str, *, at: str = "RCPT") -> None:
        """Never reply from now on. `stalled` is set once a client waits for a reply."""
        self._silent.add((at, address))

    def hang_up(self) -> None:
        """Close every connection."""
        for conversation in tuple(self._open):
            conversation.abort()

    async def arrived(self, count: int, *, timeout: float = 10.0) -> list[Mail]:
        """All mails, once there are `count`. Raises TimeoutError after `timeout` seconds."""

        async def enough() -> None:
            async with self._arrivals:
                await self._arrivals.wait_for(lambda: len(self.mails) >= count)

        await asyncio.wait_for(enough(), timeout)
        return self.mails

    async def __aenter__(self) -> Self:
        if self._security != "none":
            self._tls = await asyncio.to_thread(_tls_context, self.host)
        implicit = self._tls if self._security == "tls" else None
        self._server = await asyncio.get_running_loop().create_server(
            self._conversation, self.host, self.port, ssl=implicit
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._idle.wait()
        await self._server.wait_closed()

    def _conversation(self) -> "_Conversation":
        return _Conversation(
            self,
            tls=self._tls if self._security == "starttls" else None,
            implicit_tls=self._security == "tls",
            smtputf8=self._smtputf8,
            size_limit=self._size_limit,
        )

    def began(self, conversation: "_Conversation") -> None:
        """Note a new connection."""
        if conversation not in self._open:
            self._open.add(conversation)
            self._idle.clear()
            self.connections += 1
            self.max_connections = max(self.max_connections, len(self._open))

    def ended(self, conversation: "_Conversation") -> None:
        """Note the end of a connection."""
        self._open.discard(conversation)
        if not self._open:
            self._idle.set()

    async def reply(self, at: str, address: str) -> str | None:
        """The next scripted reply; None: accept."""
        for key in ((at, address), (at, ANY_ADDRESS)):
            if key in self._silent:
                self.stalled.set()
                await asyncio.get_running_loop().create_future()  # until the client hangs up, which cancels this
            if self._replies[key]:
                return self._replies[key].popleft()
            if key in self._repeated:
                return self._repeated[key]
        return None

    def drops(self, address: str) -> bool:
        for key in (address, ANY_ADDRESS):
            if self._drops[key] > 0:
                self._drops[key] -= 1
                return True
        return False

    async def keep(self, mail: Mail) -> None:
        self.mails.append(mail)
        async with self._arrivals:
            self._arrivals.notify_all()

    # aiosmtpd calls these methods by their names.

    async def handle_MAIL(  # noqa: N802
        self, _server: "_Conversation", session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if self.login and not session.authenticated:
            return "530 5.7.0 Authentication required"
        if refusal := await self.reply("MAIL", address):
            return refusal
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: "_Conversation", _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if refusal := await self.reply("RCPT", address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: "_Conversation", _session: Any, envelope: Any) -> str:  # noqa: N802
        for address in envelope.rcpt_tos:
            if self.drops(address):
                server.abort()
                await asyncio.sleep(0)  # the conversation is cancelled here, so nothing is sent
            if refusal := await self.reply("DATA", address):
                return refusal
        await self.keep(read(envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
        if self.latency:
            await asyncio.sleep(self.latency)
        return f"250 2.0.0 OK queued as {len(self.mails):06}"


class _Conversation(SMTP):
    """One connection of a client."""

    def __init__(
        self, mailbox: Mailbox, *, tls: ssl.SSLContext | None, implicit_tls: bool, smtputf8: bool, size_limit: int
    ) -> None:
        self.mailbox = mailbox
        super().__init__(
            mailbox,
            hostname="mailbox.localhost",
            ident="Bellwire mailbox",
            tls_context=tls,
            require_starttls=tls is not None,
            auth_require_tls=not implicit_tls,
            authenticator=self._login,
            enable_SMTPUTF8=smtputf8,
            data_size_limit=size_limit,
            loop=asyncio.get_running_loop(),
        )

    def abort(self) -> None:
        """Close the connection and stop: during a TLS handshake, aiosmtpd does not notice that the connection is closed."""
        for transport in (self.transport, self._original_transport):
            if transport is not None:
                cast(asyncio.WriteTransport, transport).abort()
        assert self._handler_coroutine is not None
        self._handler_coroutine.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._original_transport is None:  # it is called again after STARTTLS
            self.mailbox.began(self)
            assert self._handler_coroutine is not None
            self._handler_coroutine.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Called once for each conversation; `connection_lost` is not called if a handshake fails."""
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log that the client hung up
        self.mailbox.ended(self)

    def _login(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: LoginPassword) -> AuthResult:
        wanted = self.mailbox.login and tuple(part.encode() for part in self.mailbox.login)
        return AuthResult(success=wanted is None or (given.login, given.password) == wanted, handled=False)


def read(envelope_from: str, recipients: tuple[str, ...], raw: bytes) -> Mail:
    """The mail in `raw`, with its texts decoded."""
    message = message_from_bytes(raw, policy=policy.default)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    headers: dict[str, str] = {}
    for name, value in message.items():
        headers.setdefault(name, str(value))
    return Mail(
        envelope_from=envelope_from,
        to=recipients[0],
        recipients=recipients,
        subject=headers.get("Subject", ""),
        text=text.get_content().replace("\r\n", "\n") if text else "",
        html=html.get_content().replace("\r\n", "\n") if html else None,
        message_id=headers.get("Message-ID", ""),
        headers=headers,
        raw=raw,
    )


def _tls_context(host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with TemporaryDirectory() as folder:
        file = Path(folder, "mailbox.pem")
        file.write_bytes(self_signed(host))
        context.load_cert_chain(file)
    return context


def self_signed(host: str) -> bytes:
    """A key and a self-signed certificate for `host`, as PEM, valid for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mailbox.localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
