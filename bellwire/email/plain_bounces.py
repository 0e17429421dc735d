"""Reads bounces without a machine-readable part in the two forms that have a structure: qmail's and older Exim's.

qmail's form (QSBMF) has paragraphs: an introduction, one for each recipient that starts with "<address>:", and the returned mail
after a paragraph that starts with "-". Exim names the recipients in X-Failed-Recipients, and has the reply on a line of its own
below each of them.
"""

import re
from typing import NamedTuple

from bellwire.email.mail_parts import Fields, Part, parse_mail

#: Bytes of the text that are read, and recipients of Exim's header.
_MAX_TEXT, _MAX_NAMED = 256 * 1024, 50
_INTRODUCTION = re.compile(r"\s*Hi\. This is the ")
_RECIPIENT = re.compile(r"<([^<>\s]{3,320})>:\n")
_QMAIL_BREAK = re.compile(r"\n\n-[^\n]*\n+")
_EXIM_BREAK = re.compile(r"\n-{4,} ?This is a copy of [^\n]*\n+")
#: Where a reply stands: at the start of a line, or after what qmail and Exim write before it; and qmail's own code, at the end.
_REPLY = re.compile(
    r"^[ \t]*(?:Remote host said: |host \S+ \[[^\]\n]*\]: )?([245][0-9][0-9])[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})\b([^\n]*)",
    re.MULTILINE,
)
_OWN_CODE = re.compile(r"\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)\s*$")


class PlainRecipient(NamedTuple):
    address: str
    #: The enhanced code; None without one at its place.
    status: str | None
    #: What follows it.
    text: str


class PlainBounce(NamedTuple):
    recipients: tuple[PlainRecipient, ...]
    returned: Fields


def read_plain_bounce(mail: Part, first: Part) -> PlainBounce | None:
    """The bounce, if the mail is one in these forms. `first`: its first part."""
    if first.kind != "text/plain":
        return None
    content = first.content[:_MAX_TEXT]
    text = content.decode("utf-8", "replace")
    named = [each.strip(" <>") for value in mail.fields.all("x-failed-recipients") for each in value.split(",")]
    if named:
        body, copy = _split(text, _EXIM_BREAK)
        found = tuple(_said(each, _below(body, each)) for each in named[:_MAX_NAMED] if "@" in each)
    elif _INTRODUCTION.match(text):
        body, copy = _split(text, _QMAIL_BREAK)
        paragraphs = [
            (match[1], each[match.end() :]) for each in body.split("\n\n") if (match := _RECIPIENT.match(each))
        ]
        found = tuple(_said(address, said) for address, said in paragraphs)
    else:
        return None
    return PlainBounce(found, parse_mail(copy.encode()).fields) if found else None


def _split(text: str, mark: re.Pattern[str]) -> tuple[str, str]:
    found = mark.search(text)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")


def _below(body: str, address: str) -> str:
    """The indented lines below the line of an address."""
    found = re.search(rf"^ +<?{re.escape(address)}>?(?: \([^\n]*\))?:?\n((?: +[^\n]*(?:\n|\Z))+)", body, re.MULTILINE)
    return found[1] if found else ""


def _said(address: str, text: str) -> PlainRecipient:
    if reply := _REPLY.search(text):
        status = reply[2] if reply[1][0] == reply[2][0] else None
        return PlainRecipient(address, status, f"{reply[3]} {text[reply.end() :]}")
    own = _OWN_CODE.search(text)
    return PlainRecipient(address, own[1] if own else None, text)
