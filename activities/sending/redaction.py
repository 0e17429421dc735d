"""Redaction: HTTP requests and responses as text, without signatures, credentials, cookies, tokens and one-click links.

Of the headers that are sent, only those in a list are shown: the others hold what a tenant or the operator configured. Their
values are removed from bodies too, since endpoints echo them. All patterns take linear time, whatever an endpoint sends.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from bellwire.exchanges import MAX_BODY, MAX_HEAD, REDACTED, Exchange
from bellwire.formats.storable import storable

#: Stands for a response from a private network, which tenants must not read.
PRIVATE_RESPONSE = "[redacted: private network]"
#: Bytes of a body that are searched for secrets: more than are kept, so that a secret at the end is seen whole.
_SEARCHED = MAX_BODY + 4096

#: Headers of requests whose values are shown.
_SHOWN = frozenset(
    {
        "accept",
        "accept-encoding",
        "content-type",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "webhook-request-origin",
        "webhook-request-rate",
    }
)
_SHOWN_PREFIX = "ce-"
#: Shorter values are not searched for in bodies: they would match by chance.
_MIN_SECRET = 6

#: Names of fields that hold secrets.
_WORDS = (
    *(
        "token",
        "secret",
        "passw",
        "pwd",
        "api-key",
        "api_key",
        "apikey",
        "access-key",
        "access_key",
        "accesskey",
        "auth",
    ),
    *("signature", "session", "cookie", "credential", "csrf", "xsrf", "private-key", "private_key", "privatekey"),
)
_NAME = rf"[\w.-]{{0,40}}(?:{'|'.join(_WORDS)})(?<!auth(?=or))[\w.-]{{0,40}}"
#: Response headers that match, and hold no secret.
_CHALLENGES = frozenset({"www-authenticate", "proxy-authenticate"})
#: A value that is not redacted yet and no string of JSON begins here.
_OPEN = r"'?(?!\[redacted|\\*\"|(?:Bearer|Basic) )"
#: What is replaced by what, in texts that contain one of the words: most contain none, and looking for words is cheap.
_PATTERNS = tuple(
    (words, re.compile(pattern, re.IGNORECASE), replacement)
    for words, pattern, replacement in (
        (("whsec_", "whsk_"), r"wh(sec|sk)_[\w+/=-]+", rf"wh\1_{REDACTED}"),
        (("v1,", "v1a,"), r"\bv1(a?),[\w+/=-]{16,}", rf"v1\1,{REDACTED}"),
        (("eyj",), r"\beyJ[\w-]{8,}\.[\w-]{4,}(\.[\w-]*)?", REDACTED),
        (("/unsubscribe/",), r"(/unsubscribe/)[\w=%-]{8,}", rf"\1{REDACTED}"),
        (("://",), r"(://)[^/\s:@]{1,100}:[^/\s@]{1,200}@", rf"\1{REDACTED}@"),
        (_WORDS, rf'(?<![\w.-])({_NAME}"\s{{0,9}}:\s{{0,9}}")(?:[^"\\]|\\.)*', rf"\1{REDACTED}"),
        # JSON within JSON.
        (_WORDS, rf'(?<![\w.-])({_NAME}\\+"\s{{0,9}}:\s{{0,9}}\\+")[^"\\]*', rf"\1{REDACTED}"),
        (("bearer", "basic"), r"\b(Bearer|Basic)\s{1,9}[\w.~+/-]{6,}=*(?![\w=\"])", rf"\1 {REDACTED}"),
        (_WORDS, rf"(?<![\w.-])({_NAME}[\"']?\s{{0,9}}[:=]\s{{0,9}}{_OPEN})[^\s\"'&,;<>{{}}\\]+", rf"\1{REDACTED}"),
    )
)
#: A part of a path that everybody knows, such as services or cgi-bin.
_WORD = re.compile(r"[a-z-]{1,12}")
_QUERY = re.compile(r"\?[^\s\"'<>,]+")
#: A part of a path that looks like a token: long, with letters and digits.
_TOKEN_IN_PATH = re.compile(r"(?<=/)(?=[^/?]*[0-9])(?=[^/?]*[A-Za-z])[\w.~%+=-]{20,}(?=/|$)")


class Reply(NamedTuple):
    """A response, as far as it was read."""

    status: int
    reason: str | None
    headers: Mapping[str, str]
    start: bytes | str


def http_exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | str | None,
    reply: Reply | None,
    *,
    private: bool = False,
    known: Iterable[str] = (),
) -> Exchange:
    """The exchange of a request. With `private`, it tells nothing of what happened in the network. `known`: secrets in it."""
    secrets = sorted({*_secrets_of(headers), *known}, key=len, reverse=True)
    parts = urlsplit(url)
    lines = [f"{method} {_target(parts.path or '/', parts.query)} HTTP/1.1", f"host: {parts.netloc.rpartition('@')[2]}"]
    lines += [f"{name}: {value if _is_shown(name) else REDACTED}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    request = _head(lines)
    sent = _body(body or b"", secrets)
    if private or reply is None:
        return Exchange(request=request, request_body=sent, response=PRIVATE_RESPONSE if private else "")
    plain = reply.headers.get("content-encoding", "identity").lower() == "identity"
    return Exchange(
        request=request,
        request_body=sent,
        response=_response_head(reply, secrets),
        response_body=_body(reply.start, secrets) if plain else "",
    )


def url_secrets(url: str) -> list[str]:
    """What may be secret in a URL that is a credential: parts of its path and values of its query, the longest first.

    All of it, if it cannot be taken apart.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return [url]
    found = {*parts.path.split("/"), *(pair.partition("=")[2] for pair in parts.query.split("&"))}
    found |= {unquote(each) for each in found}
    return sorted(
        (each for each in found if len(each) >= _MIN_SECRET and not _WORD.fullmatch(each)), key=len, reverse=True
    )


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """The text without `known` values, and without what looks like a secret."""
    for value in known:
        text = text.replace(value, REDACTED)
    lower = text.lower()
    for words, pattern, replacement in _PATTERNS:
        if any(map(lower.__contains__, words)):
            text = pattern.sub(replacement, text)
    return text


def _response_head(reply: Reply, secrets: list[str]) -> str:
    lines = [f"HTTP/1.1 {reply.status} {reply.reason or ''}".rstrip()]
    lines += [f"{name}: {REDACTED if _is_secret(name) else value}" for name, value in reply.headers.items()]
    text = without_secrets(_head(lines), secrets)
    return (_QUERY.sub(f"?{REDACTED}", text) if "?" in text else text)[:MAX_HEAD]


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    """Whether a response header holds a secret, by its name."""
    lower = name.lower()
    return lower not in _CHALLENGES and any(map(lower.__contains__, _WORDS))


def _head(lines: Iterable[str]) -> str:
    """Lines as one text, up to its maximum length."""
    kept: list[str] = []
    room = MAX_HEAD
    for line in lines:
        if (room := room - len(line) - 1) < 0:
            kept.append("…")
            break
        kept.append(line)
    return storable("\n".join(kept))


def _body(body: bytes | str, secrets: list[str]) -> str:
    start = body[:_SEARCHED]
    text = storable(start if isinstance(start, str) else start.decode(errors="replace"))
    kept = without_secrets(text, secrets)[:MAX_BODY]
    if len(text) >= MAX_BODY:
        # The start of a secret that is cut off.
        for value in secrets:
            cut = next((n for n in range(len(value) - 1, 3, -1) if kept.endswith(value[:n])), 0)
            kept = kept[: len(kept) - cut]
    return kept


def _secrets_of(headers: Mapping[str, str]) -> list[str]:
    """The values of headers that are not shown, and their words; the longest first."""
    values = {value for name, value in headers.items() if not _is_shown(name)}
    values |= {word for value in values for word in value.split()}
    return sorted((value for value in values if len(value) >= _MIN_SECRET), key=len, reverse=True)


def _is_shown(name: str) -> bool:
    lower = name.lower()
    return lower in _SHOWN or lower.startswith(_SHOWN_PREFIX)


def _target(path: str, query: str) -> str:
    """Path and query, with names of parameters and without their values."""
    path = _TOKEN_IN_PATH.sub(REDACTED, path)
    if not query:
        return path
    pairs = (pair.partition("=") for pair in query.split("&"))
    return f"{path}?{'&'.join(f'{name}={REDACTED}' if equals else REDACTED for name, equals, _ in pairs)}"
