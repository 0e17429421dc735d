"""WechatTokens: access tokens of one account, by WeChat's stable_token.

It answers with the same token until five minutes before that one's end. A token that WeChat rejects all the same is replaced by
force, which ends it, and which WeChat allows 20 times a day.
"""

import time
from collections.abc import Callable

import aiohttp

from activities.providers.accounts import WechatAccount
from activities.providers.token_requests import TokenRequest, request_token
from activities.providers.tokens import IssuedToken, TokenUnavailable
from activities.wechat.codes import DAY_QUOTA, MINUTE_QUOTA

#: Least seconds between tokens by force, of one worker: at most 20 a day.
FORCED_EVERY = 86_400 / 20


class WechatTokens:
    """Asks WeChat for the tokens of one account."""

    def __init__(
        self, session: aiohttp.ClientSession, account: WechatAccount, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._account, self._clock = session, account, clock
        #: The last token that WeChat rejected.
        self.rejected = ""
        self._forced_at: float | None = None

    async def issue(self) -> IssuedToken:
        """A token. Raises TokenUnavailable."""
        issued = await self._issue(force=False)
        if issued.token != self.rejected:
            return issued
        now = self._clock()
        if self._forced_at is not None and now - self._forced_at < FORCED_EVERY:
            raise TokenUnavailable("WeChat rejects its own token", operator=True)
        self._forced_at = now
        return await self._issue(force=True)

    async def _issue(self, *, force: bool) -> IssuedToken:
        body = {
            "grant_type": "client_credential",
            "appid": self._account.app_id,
            "secret": self._account.secret.get_secret_value(),
            "force_refresh": force,
        }
        request = TokenRequest(
            name="WeChat",
            url=f"{self._account.url}/cgi-bin/stable_token",
            timeout=self._account.timeout,
            body=body,
            passing={DAY_QUOTA: None, MINUTE_QUOTA: 60},
        )
        return await request_token(self._session, request)
