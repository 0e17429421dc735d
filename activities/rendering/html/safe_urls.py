"""The URLs that mails and their styles may contain: http, https, mailto, tel, and relative ones."""

import re

#: Schemes that links and images may have.
SCHEMES = frozenset({"http", "https", "mailto", "tel"})

#: Characters that mail readers ignore in front of and within a scheme.
_SKIPPED = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]+")
_SCHEME = re.compile(r"([^/?#:]*):")


def is_safe_url(url: str) -> bool:
    """Whether the URL is relative or has an allowed scheme, however a mail reader may read it."""
    scheme = _SCHEME.match(_SKIPPED.sub("", url))
    return scheme is None or scheme[1].lower() in SCHEMES
