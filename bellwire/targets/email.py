"""Email targets: one address, or several that get the same mail."""

from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag

from bellwire.formats.mailboxes import canonical_mailbox, mailbox_key
from bellwire.models import skip_when_trusted
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget

#: Maximum recipients of one email subscription; beyond that, use the address of a list server.
MAX_RECIPIENTS = 20

#: In its canonical form.
EmailAddress = Annotated[str, Field(max_length=254), skip_when_trusted(canonical_mailbox)]


class EmailTarget(ChannelTarget):
    channel: Literal[Channel.EMAIL] = Channel.EMAIL
    #: One address, or several that get the same mail, each in an envelope of its own.
    to: Annotated[
        Annotated[EmailAddress, Tag("(one)")]
        | Annotated[tuple[EmailAddress, ...], Field(min_length=1, max_length=MAX_RECIPIENTS), Tag("(several)")],
        Discriminator(
            lambda value: (
                "(one)" if isinstance(value, str) else "(several)" if isinstance(value, list | tuple) else None
            ),
            custom_error_type="address",
            custom_error_message="must be an address, such as ann@example.com, or a list of them",
        ),
    ]
    #: Attach the files that an event names in `data.attachments`: [{"url", "name"?, "type"?}], up to 10 and 15 MB.
    attachments: bool = False

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses, each mailbox once, in the order given."""
        if isinstance(self.to, str):
            return (self.to,)
        once: dict[str, str] = {}
        for address in self.to:
            once.setdefault(mailbox_key(address), address)
        return tuple(once.values())

    def keeping(self, recipients: tuple[str, ...]) -> Self:
        return self.model_copy(update={"to": recipients})


EMAIL = ChannelSpec(
    channel=Channel.EMAIL,
    example=EmailTarget(to="ann@example.com"),
    templates=MappingProxyType(
        {"email.subject": "email.subject.txt", "email.text": "email.txt", "email.html": "email.html"}
    ),
    # 9 attempts over 49 h 21 min. Greylisting servers need at least 5 minutes (RFC 6647 §5); RFC 5321 §4.5.4.1 asks for days.
    schedule=(60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 54_000.0, 86_400.0),
    inline=True,
    address_key=mailbox_key,
)
