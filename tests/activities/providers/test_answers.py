"""What strange answers of providers mean, and what of an answer is recorded."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from activities.providers.answers import DELIVERED, GONE, HOOK_GONE, Meaning
from activities.providers.http import ProviderResponse
from activities.providers.token_calls import answer_of, answer_of_status
from activities.sending.redaction import url_secrets
from bellwire.deliveries import OutcomeKind

CODES = {0: DELIVERED, 40003: GONE}


def response(body: Any, status: int = 200, retry_after: float | None = None) -> ProviderResponse:
    text = body if isinstance(body, str) else json.dumps(body)
    headers = CIMultiDictProxy(CIMultiDict[str]())
    return ProviderResponse(status=status, text=text, headers=headers, retry_after=retry_after)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"errcode": 0}, "delivered"),
        (200, {"errcode": "0"}, "delivered"),
        (200, {"errcode": "40003"}, "rejected"),
        (200, {"errcode": None}, "unknown"),
        (200, {"errcode": 0.0}, "unknown"),
        (200, {"errcode": False}, "unknown"),
        (200, {"errcode": [0]}, "unknown"),
        (200, {"data": {"errcode": 0}}, "unknown"),
        (200, [{"errcode": 0}], "unknown"),
        (200, "<html>", "unknown"),
        (200, "", "unknown"),
        (204, "", "unknown"),
        (302, "", "deferred"),
        (404, "<html>", "deferred"),
        (404, {"errcode": 40003}, "rejected"),
        (500, {"errcode": 0}, "unknown"),
        (200, {"errcode": 10**300}, "deferred"),
    ],
)
def test_only_a_code_of_success_is_success(status: int, body: Any, kind: str) -> None:
    assert answer_of(response(body, status), "errcode", CODES).meaning.kind is OutcomeKind(kind)


@pytest.mark.parametrize(
    ("status", "body", "kind", "suppress"),
    [
        (200, {"id": "1"}, "delivered", False),
        (200, {"note": "a proxy"}, "unknown", False),
        (200, "<html>", "unknown", False),
        (203, {"id": "1"}, "unknown", False),
        (409, {"note": "accepted before"}, "delivered", False),
        (404, {"error": "no user"}, "rejected", True),
        (404, "<html>", "deferred", False),
        (410, "<html>", "deferred", False),
        (302, "", "deferred", False),
        (503, "", "deferred", False),
    ],
)
def test_a_status_says_what_was_done_unless_a_proxy_answers(status: int, body: Any, kind: str, suppress: bool) -> None:
    statuses: dict[int, Meaning] = {200: DELIVERED, 409: DELIVERED, 404: GONE, 410: HOOK_GONE}
    answer = answer_of_status(response(body, status, 7), statuses, accepted="id")
    assert (answer.code, answer.meaning.kind, answer.meaning.suppress) == (str(status), OutcomeKind(kind), suppress)
    assert not answer.meaning.disable
    assert answer.meaning.wait == 7


def test_an_answer_without_a_code_may_say_how_long_to_wait() -> None:
    meaning = answer_of(response("busy", 503, 30), "errcode", CODES).meaning
    assert (meaning.kind, meaning.wait) == (OutcomeKind.DEFERRED, 30)
    limited = answer_of(response("busy", 429), "errcode", CODES).meaning
    assert (limited.wait, limited.throttle) == (60, True)


def test_a_code_may_be_in_another_field() -> None:
    answer = answer_of(response({"StatusCode": 0}), "code", CODES, or_field="StatusCode")
    assert answer.meaning is DELIVERED


def test_parts_of_a_url_that_are_credentials_are_found() -> None:
    found = url_secrets("https://hooks.slack.com/services/T0123456/B0123456/x%2Fabcdef0?key=6f2c-99&v=1")
    assert set(found) == {"x%2Fabcdef0", "x/abcdef0", "T0123456", "B0123456", "6f2c-99"}
