"""Fixtures of the SMS tests: fake providers and an HTTP session."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from activities.sms.channel import SmsChannel
from starter.local.receivers.sms_gateway import FakeSmsGateway
from starter.local.receivers.twilio import FakeTwilio
from tests.activities.sms.channels import Claims, sms_channel


@pytest.fixture
async def twilio() -> AsyncIterator[FakeTwilio]:
    async with FakeTwilio() as fake:
        yield fake


@pytest.fixture
async def gateway() -> AsyncIterator[FakeSmsGateway]:
    async with FakeSmsGateway() as fake:
        yield fake


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def channel(twilio: FakeTwilio, session: aiohttp.ClientSession, claims: Claims) -> SmsChannel:
    return sms_channel(twilio, session, claims)
