"""Web URLs: one check for all http and https URLs that tenants and operators write."""

from urllib.parse import SplitResult, urlsplit

from bellwire.formats.hosts import canonical_host, is_visible

#: The full stops that end a label: of ASCII and of the scripts of East Asia, full-width and half-width (UTS #46).
_DOTS = (".", "\u3002", "\uff0e", "\uff61")


def parse_web_url(value: str, *, example: str) -> SplitResult:
    """Parse an absolute http or https URL. Raises ValueError, also for a host that can never be reached."""
    if value != value.strip():
        raise ValueError("begins or ends with white space or a control character; remove it")
    if not is_visible(value) or " " in value or "\\" in value:
        raise ValueError("contains white space, a control character or a backslash; percent-encode them")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Python's message repeats the part, which may be a credential.
        raise ValueError("is not a valid URL: its host or port cannot be read") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise ValueError(f"must be an http or https URL with a host, such as {example}")
    if port == 0:
        raise ValueError("has port 0, which is out of range; leave it out, or give another")
    canonical_host(host)
    return parts


def with_canonical_host(url: str) -> str:
    """The URL with its host in ASCII, by IDNA 2008; everything else as it was given. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or parts.hostname.isascii():
        return url
    login, at, _ = parts.netloc.rpartition("@")
    port = "" if parts.port is None else f":{parts.port}"
    # A dot at the end keeps the resolver from trying the name with its search domains.
    end = "." if parts.hostname.endswith(_DOTS) else ""
    return url.replace(parts.netloc, f"{login}{at}{canonical_host(parts.hostname)}{end}{port}", 1)
