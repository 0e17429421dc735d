"""Status codes of mail systems (RFC 3463), and which of them say that nobody reads the mail of an address.

A code counts at its place: at the start of a reply or a field. Elsewhere, digits with dots are part of an address, a version or
a quotation. The text after the code can only weaken it, except where the standard leaves open what the code means.
"""

import re

#: The mailbox does not exist: unknown, not a valid address, moved, or a domain that accepts no mail (RFC 7505). Others of
#: 5.1.x concern the sender: 5.1.7, 5.1.8, and Exchange Online's 5.1.20 and 5.1.90 (its quota of recipients is used up).
_GONE = {"5.1.1", "5.1.3", "5.1.6", "5.1.10"}
#: The domain does not exist, or is "incapable of accepting mail": only some texts say which.
_BAD_DOMAIN = "5.1.2"
#: The mailbox accepts no mail: it is disabled, or gets too much at the moment.
_DISABLED = "5.2.1"

_CODE = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?!\.?\d)")
_AT_START = re.compile(rf"[#(\s]*({_CODE.pattern})")
#: A diagnostic is "smtp; 550 5.1.1 text" or "550-5.1.1 text"; some systems leave out the type or the SMTP code.
_IN_DIAGNOSTIC = re.compile(rf"(?:[\w-]{{1,40}}\s*;)?\s*(?:(\d{{3}})(?:[\s-]+|$))?(?:#?({_CODE.pattern}))?", re.ASCII)

#: Addresses and links in a text, whose words say nothing about the failure.
_QUOTED = re.compile(r"<[^<>]*>|https?://\S+|\S+@\S+")
_TEMPORARY = re.compile(
    r"quota|\bfull\b|over (its |the )?(storage )?limit|limit (is |was )?(exceeded|reached)|exceed|at a rate|rate[ -]limit|"
    r"too (many|much|quickly|fast)|temporar|(try|tried) again|gr[ea]ylist|timed? ?out|not responding|at (this|the) (time|moment)",
    re.IGNORECASE,
)
_NOT_THE_RECIPIENT = re.compile(
    r"\bsender\b.{0,40}\b(reject|unknown|denied|verif|invalid|not\b|blocked|unroutable)|"
    r"\b(reject|unknown|bad|invalid)\w* sender\b|"
    r"relay(ing)?\b.{0,20}\b(denied|disallowed|prohibited|not (permitted|allowed))|"
    r"\b(spam|blocked|bl[oa]c?k ?list\w*|blacklist\w*|reputation|polic(y|ies)|preferences)\b",
    re.IGNORECASE,
)
_NO_DOMAIN = re.compile(
    r"(domain|host|system|\bmx\b|dns)\b.{0,60}(not (be )?found|unknown|not exist|n't exist|invalid|non-?existent)|"
    r"(no such|unknown|bad|invalid|(un)?able to find|(cannot|n't|not) find|non-?existent|no mx|null)"
    r".{0,40}(domain|host|system|\bmx\b|record)",
    re.IGNORECASE,
)
_SAYS_DISABLED = re.compile(
    r"disabled|deactivated|inactive|not active|no longer|closed|discontinued|terminated|deleted", re.IGNORECASE
)


def code_at_start(text: str) -> str | None:
    """The code at the start of a Status field or of the text of a reply: 5.1.1; None without one."""
    found = _AT_START.match(text)
    return found[1] if found else None


def codes_in_diagnostic(field: str) -> tuple[str | None, str | None]:
    """The SMTP code and the enhanced code of a Diagnostic-Code field; None for what is not at its place."""
    found = _IN_DIAGNOSTIC.match(field)
    return (found[1], found[2]) if found else (None, None)


def is_temporary(text: str) -> bool:
    """Whether the text speaks of a condition that passes, such as a full mailbox."""
    return bool(_TEMPORARY.search(_QUOTED.sub(" ", text)))


def says_nobody_is_there(code: str, text: str) -> bool:
    """Whether a permanent failure with this enhanced code and text means that the address has no reader."""
    text = _QUOTED.sub(" ", text[:2000])
    if _TEMPORARY.search(text) or _NOT_THE_RECIPIENT.search(text):
        return False
    if code == _BAD_DOMAIN:
        return not re.search("[A-Za-z]", text) or bool(_NO_DOMAIN.search(text))
    return code in _GONE or (code == _DISABLED and bool(_SAYS_DISABLED.search(text)))
