"""Downloads from untrusted URLs, under the egress policy, with a limit on size and time."""

from typing import NamedTuple

import aiohttp

from activities.egress.capped import read_capped
from activities.egress.failures import CLIENT_ERRORS, COMMON_HEADERS, classify_error
from activities.egress.forward_proxy import proxy_failure
from activities.egress.policy import NOT_ALLOWED, Egress, EgressRefused, timeouts
from bellwire.deliveries import OutcomeKind
from bellwire.formats.media_types import UNKNOWN, essence

#: Client errors that a later request may not meet: timeout, conflict, too early, too many requests.
_TEMPORARY = frozenset({408, 409, 425, 429})


class DownloadFailed(Exception):
    """The content does not exist, or cannot be downloaded now.

    `reason` is one of a few fixed texts, `HTTP` and the status, or `larger than N bytes`; it holds no address. With
    `temporary`, a later try may succeed. With `operator_fault`, the operator has to fix something.
    """

    def __init__(self, reason: str, *, temporary: bool = False, operator_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.temporary = temporary
        self.operator_fault = operator_fault


class Download(NamedTuple):
    """A downloaded content."""

    #: In lower case, without parameters.
    media_type: str
    content: bytes


class Downloader:
    """Downloads from untrusted URLs. `session` is one that `egress` made."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress) -> None:
        self._session = session
        self._egress = egress

    async def download(self, url: str, *, limit: int, timeout: float) -> Download:
        """The whole content, of up to `limit` bytes. `timeout`: seconds from connecting to the last byte.

        Only a response 200 counts; redirects are not followed. Raises EgressRefused for what may not be dialled, and for
        content of the operator's own networks, which tenants must not read. Raises DownloadFailed for everything else.
        """
        target = self._egress.checked(url)
        dialled = self._egress.dialling()
        try:
            async with self._session.get(
                target, headers=COMMON_HEADERS, allow_redirects=False, timeout=timeouts(timeout)
            ) as response:
                self._egress.check_forwarded(response)
                if dialled.private:
                    raise EgressRefused(NOT_ALLOWED)
                return await _content(response, limit)
        except CLIENT_ERRORS as error:
            refusal = error if isinstance(error, EgressRefused) else error.__cause__
            if isinstance(refusal, EgressRefused):
                raise refusal from None
            if dialled.private:
                raise EgressRefused(NOT_ALLOWED) from None
            outcome = classify_error(error)
            # The client's error names the address, so it is not chained.
            raise DownloadFailed(
                outcome.reason,
                temporary=outcome.kind is OutcomeKind.DEFERRED,
                operator_fault=proxy_failure(error) is not None,
            ) from None


async def _content(response: aiohttp.ClientResponse, limit: int) -> Download:
    if response.status != 200:
        raise DownloadFailed(f"HTTP {response.status}", temporary=_is_temporary(response.status))
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise DownloadFailed("unexpected content-encoding")
    if (response.content_length or 0) > limit:
        raise DownloadFailed(f"larger than {limit} bytes")
    content = await read_capped(response, limit + 1)
    if len(content) > limit:
        raise DownloadFailed(f"larger than {limit} bytes")
    return Download(essence(response.headers.get("content-type")) or UNKNOWN, content)


def _is_temporary(status: int) -> bool:
    """Whether a later request may get another status: not after success without content, a redirect or a client error."""
    return status in _TEMPORARY or not 200 <= status < 500
