"""Fetching: GET of a URL that a stranger chose, under the egress policy, with a limit of bytes and of time."""

import re

import aiohttp

from activities.egress.forward_proxy import proxy_fault
from activities.egress.policy import (
    NOT_ALLOWED,
    Egress,
    EgressRefused,
    timeouts,
)
from activities.webhook.channel import (
    CAUGHT,
    USER_AGENT,
    failed,
    judge_status,
)
from bellwire.deliveries import OutcomeKind

#: What a content type looks like without its parameters (RFC 9110, 8.3.1), and what it is if there is none such.
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}")
UNKNOWN_TYPE = "application/octet-stream"


class FetchFailed(Exception):
    """There is no such content, or not now.

    `reason` is one of a few fixed texts, `HTTP` and the status, or `larger than N bytes`; it holds no address. With
    `passing`, a later try may succeed. With `ours`, the operator has to mend something.
    """

    def __init__(self, reason: str, *, passing: bool = False, ours: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.ours = ours


class Fetcher:
    """Fetches from strangers. `session` is one that `egress` made."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress) -> None:
        self._session = session
        self._egress = egress

    async def fetch(self, url: str, *, limit: int, timeout: float) -> tuple[str, bytes]:
        """The media type, in lower case and without parameters, and the content: all of it, if that is up to `limit` bytes.

        `timeout` is in seconds, from dialling to the last byte. Only an answer 200 counts, and no redirect is followed.
        Raises EgressRefused for what may not be dialled, and for what may but not be told of: content from the operator's
        own networks is for webhooks to answer and not for strangers to read. Raises FetchFailed for everything else.
        """
        target = self._egress.checked(url)
        dialled = self._egress.dialling()
        try:
            async with self._session.get(
                target,
                headers={"accept-encoding": "identity", "user-agent": USER_AGENT},
                allow_redirects=False,
                timeout=timeouts(timeout),
            ) as response:
                self._egress.check_forwarded(response)
                if dialled.inside:
                    raise EgressRefused(NOT_ALLOWED)
                return await _content(response, limit)
        except CAUGHT as error:
            refusal = error if isinstance(error, EgressRefused) else error.__cause__
            if isinstance(refusal, EgressRefused):
                raise refusal from None
            if dialled.inside:
                raise EgressRefused(NOT_ALLOWED) from None
            outcome = failed(error)
            passing, ours = outcome.kind is OutcomeKind.DEFERRED, proxy_fault(error) is not None
            # The client's error names the address.
            raise FetchFailed(outcome.reason, passing=passing, ours=ours) from None


async def _content(response: aiohttp.ClientResponse, limit: int) -> tuple[str, bytes]:
    if response.status != 200:
        passing = judge_status(response.status) is OutcomeKind.DEFERRED and not 300 <= response.status < 400
        raise FetchFailed(f"HTTP {response.status}", passing=passing)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed("compressed although asked not to")
    if (response.content_length or 0) > limit:
        raise FetchFailed(f"larger than {limit} bytes")
    content = bytearray()
    # Leaving the response before its end closes the connection.
    while block := await response.content.read(limit + 1 - len(content)):
        content += block
        if len(content) > limit:
            raise FetchFailed(f"larger than {limit} bytes")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else UNKNOWN_TYPE, bytes(content)
