"""Web URLs: one check for all http and https URLs that tenants and operators write."""

from urllib.parse import SplitResult, urlsplit


def parse_web_url(value: str, *, example: str) -> SplitResult:
    """Parse an absolute http or https URL. Raises ValueError, whose message contains the `example`."""
    if not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("contains white space, a control character or a backslash; percent-encode them")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a valid URL: {error}") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise ValueError(f"must be an http or https URL with a host, such as {example}")
    if port == 0:
        raise ValueError("has port 0, which is out of range; leave it out, or give another")
    return parts
