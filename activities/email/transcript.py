"""Transcript: the part of an SMTP session that is about one mail, for the exchanges that are kept with attempts."""

import re
from email import message_from_bytes, policy

from activities.sending.redaction import without_secrets
from bellwire.exchanges import MAX_BODY, MAX_HEAD, REDACTED, Exchange
from bellwire.formats.storable import storable

#: Bytes of a mail that are read for its headers and text, which come before attachments.
_READ = 65_536
#: Headers of mails that hold a signature.
_SIGNATURES = frozenset({"dkim-signature", "arc-seal", "arc-message-signature"})
#: The token in an envelope sender (see bellwire/email/return_path.py).
_RETURN_TOKEN = re.compile(r"\+[\w-]{20,}(?=@)")


class Transcript:
    """Commands and replies about one mail."""

    __slots__ = ("_command", "_mail", "_recipient", "_replies", "_sender")

    def __init__(self, sender: str, recipient: str, mail: bytes) -> None:
        self._sender, self._recipient, self._mail = sender, recipient, mail
        #: The commands that were sent: 0 none, 1 MAIL, 2 RCPT, 3 DATA.
        self._command = 0
        self._replies: list[tuple[int, str]] = []

    def sends(self) -> None:
        """Note that the next command is sent."""
        self._command += 1

    def got(self, code: int, message: str) -> None:
        """Note a reply."""
        self._replies.append((code, message))

    @property
    def exchange(self) -> Exchange:
        """What was sent and replied. The mail is part of it once it was sent."""
        commands = (f"MAIL FROM:<{self._sender}>", f"RCPT TO:<{self._recipient}>", "DATA")[: self._command]
        replies = (f"{code} {message}".replace("\n", f"\n{code} ") for code, message in self._replies)
        return Exchange(
            request=_clean("\n".join(commands)),
            request_body=_readable(self._mail) if self._command == len(("MAIL", "RCPT", "DATA")) else "",
            response=_clean("\n".join(replies))[:MAX_HEAD],
        )


def _clean(text: str) -> str:
    return without_secrets(_RETURN_TOKEN.sub(f"+{REDACTED}", storable(text)))


def _readable(mail: bytes) -> str:
    """The mail's headers, and its text decoded."""
    message = message_from_bytes(mail[:_READ], policy=policy.default)
    lines = [
        f"{name}: {REDACTED if name.lower() in _SIGNATURES else ' '.join(str(value).split())}"
        for name, value in message.items()
    ]
    part = message.get_body(("plain", "html"))
    text = str(part.get_content()) if part is not None else ""
    return _clean("\n".join([*lines, "", text]))[:MAX_BODY]
