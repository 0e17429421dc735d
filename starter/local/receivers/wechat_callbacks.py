"""WechatCallbacks: the events that WeChat sends to a server, in plain or in safe mode, and repeats until it is answered."""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: How often an event is repeated that is not answered with `success`, and the seconds that WeChat waits for the answer.
REPEATS, ANSWER_TIMEOUT = 3, 5.0
#: PKCS #7 pads to this size.
_BLOCK = 32


class WechatCallbacks:
    """Sends events to `url`; to nowhere while it is empty."""

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.url = ""
        self.token = secrets.token_hex(8)
        #: The EncodingAESKey of safe mode.
        self.aes_key = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        #: Whether events are encrypted, and whether they are JSON.
        self.safe_mode, self.as_json = False, False
        #: Seconds before an event is sent, and before it is repeated.
        self.delay, self.repeat_delay = 0.0, 1.0
        #: How often an event is repeated although it was answered with `success`.
        self.needless_repeats = 0
        #: The statuses of all answers.
        self.statuses: list[int] = []
        self._created = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, openid: str, event: str, fields: Mapping[str, Any]) -> None:
        """Send an event about this user in the background."""
        if self.url:
            # A user's dialogs are never in the same second.
            self._created = max(int(time.time()), self._created + 1)
            document = {
                "ToUserName": "gh_0123456789ab",
                "FromUserName": openid,
                "CreateTime": self._created,
                "MsgType": "event",
                "Event": event,
                **fields,
            }
            task = asyncio.create_task(self._send(self._text(document)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def sent(self) -> None:
        """Wait until each event is answered with `success` or was repeated in vain."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Send no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def post(self, text: str, *, token: str | None = None) -> tuple[int, str]:
        """Send this once, signed by `token`. Returns status and text of the answer."""
        token = self.token if token is None else token
        timestamp, nonce = str(int(time.time())), secrets.token_hex(5)
        query = {"timestamp": timestamp, "nonce": nonce, "signature": signature(token, timestamp, nonce)}
        if self.safe_mode:
            encrypted = sealed(self.aes_key, text, app_id=self.app_id)
            query |= {"encrypt_type": "aes", "msg_signature": signature(token, timestamp, nonce, encrypted)}
            text = self._text({"ToUserName": "gh_0123456789ab", "Encrypt": encrypted})
        headers = {"Content-Type": "application/json" if self.as_json else "text/xml"}
        limit = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(self.url, params=query, data=text.encode(), headers=headers) as response,
        ):
            return response.status, await response.text()

    async def _send(self, text: str) -> None:
        await asyncio.sleep(self.delay)
        needless = self.needless_repeats
        for _ in range(1 + REPEATS):
            try:
                status, answer = await self.post(text)
            except (aiohttp.ClientError, TimeoutError):
                status, answer = 0, ""
            self.statuses.append(status)
            if (status, answer) != (200, "success"):
                await asyncio.sleep(self.repeat_delay)
            elif needless:
                needless -= 1
            else:
                return

    def _text(self, document: Mapping[str, Any]) -> str:
        if self.as_json:
            return json.dumps(document, ensure_ascii=False)
        return f"<xml>{''.join(_element(name, value) for name, value in document.items())}</xml>"


def signature(*parts: str) -> str:
    """WeChat's signature of a token, a time, a nonce and, in safe mode, the encrypted text."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 - WeChat signs so


def sealed(aes_key: str, text: str, *, app_id: str) -> str:
    """The text, encrypted by an EncodingAESKey for the account of this app id."""
    key, message = base64.b64decode(aes_key + "="), text.encode()
    plain = secrets.token_bytes(16) + len(message).to_bytes(4, "big") + message + app_id.encode()
    padding = _BLOCK - len(plain) % _BLOCK
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


def _element(name: str, value: Any) -> str:
    """An element; of a list, one for each member."""
    if isinstance(value, list):
        return "".join(_element(name, each) for each in value)
    if isinstance(value, Mapping):
        return f"<{name}>{''.join(_element(inner, each) for inner, each in value.items())}</{name}>"
    return f"<{name}>{value}</{name}>" if isinstance(value, int) else f"<{name}><![CDATA[{value}]]></{name}>"
