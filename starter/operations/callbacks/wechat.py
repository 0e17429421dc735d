"""What WeChat calls back with: what became of messages, and what users agree to."""

from datetime import UTC, datetime

import structlog

from bellwire.deliveries import DeliveryKey
from bellwire.errors import DeliveryNotFound, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, WechatTarget

log = structlog.get_logger("bellwire")

#: Why a template message failed, by WeChat's status without its spaces: `failed: system failed` is written with and without.
FAILURES = {
    "failed:userblock": "user block",
    "failed:systemfailed": "system failed",
    "failed:freqlimit": "freq limit",
}
USER_BLOCK = "user block"
NOT_GRANTED = "43101"
#: Longest error code and template id that are taken from outside, in characters.
MAX_CODE, MAX_TEMPLATE_ID = 12, 64


async def record_template_result(registry: Registry, account: str, openid: str, message_id: str, status: str) -> bool:
    """Record what became of a template message, and suppress a user who blocks them; False if there is no such message.

    Raises RegistryUnavailable.
    """
    compact = status.lower().replace(" ", "")
    code = None if compact == "success" else FAILURES.get(compact, "failed")
    return await _record(registry, account, openid, message_id, code)


async def record_sent(registry: Registry, account: str, openid: str, message_id: str, error: str) -> bool:
    """Record what became of a subscription notification; False if there is no such message."""
    code = (
        None if error in {"", "0"} else error if error.lstrip("-").isdecimal() and len(error) <= MAX_CODE else "failed"
    )
    return await _record(registry, account, openid, message_id, code)


async def record_choice(
    registry: Registry, account: str, openid: str, *, template_id: str, choice: str, created: str, popup: bool
) -> None:
    """Count what a user agreed to in a dialog (`popup`), or take note of what the user changed in WeChat's settings."""
    grantee = Grantee(account, openid, template_id)
    if not 0 < len(template_id) <= MAX_TEMPLATE_ID or not (
        created.isascii() and created.isdecimal() and len(created) <= 10
    ):
        return
    if popup and choice == "accept":
        if await registry.wechat_grants.add(grantee, at=datetime.fromtimestamp(int(created), UTC)):
            # Who has just asked for a message wants it, even without following the account.
            await followed(registry, account, openid)
    elif not popup and choice == "reject":
        await registry.wechat_grants.clear(grantee)
    elif not popup and choice == "accept":
        await registry.wechat_grants.forget(grantee)
    else:
        return
    log.info("wechat.choice_recorded", account=account, choice=choice)


async def followed(registry: Registry, account: str, openid: str) -> None:
    """The user follows the account again: lift what its refusals and unfollowing have suppressed."""
    lifted = [
        await registry.suppressions.lift(Channel.WECHAT, f"{account}/{openid}", reason=reason)
        for reason in (SuppressionReason.BOUNCED, SuppressionReason.UNSUBSCRIBED)
    ]
    if any(lifted):
        log.info("wechat.suppression_lifted", account=account)


async def unfollowed(registry: Registry, account: str, openid: str) -> None:
    """The user follows the account no longer: WeChat would refuse each message, with 43004."""
    await registry.suppressions.add(
        Suppression(
            channel=Channel.WECHAT,
            address=f"{account}/{openid}",
            reason=SuppressionReason.UNSUBSCRIBED,
            cause="WeChat unsubscribe",
        )
    )
    log.info("wechat.unfollowed", account=account)


async def _record(registry: Registry, account: str, openid: str, message_id: str, code: str | None) -> bool:
    found = await registry.attempts.by_provider_ids([message_id]) if message_id else {}
    for key in found.get(message_id, ()):
        try:
            target = (await registry.subscriptions.get(key.subscription_id)).target
        except SubscriptionNotFound:
            continue
        if isinstance(target, WechatTarget) and (target.account, target.openid) == (account, openid):
            return await _record_of(registry, key, target, message_id, code)
    return False


async def _record_of(
    registry: Registry, key: DeliveryKey, target: WechatTarget, message_id: str, code: str | None
) -> bool:
    account, openid = target.account, target.openid
    receipt = SmsReceipt(
        event_key=key.event_key,
        subscription_id=key.subscription_id,
        provider_id=message_id,
        status=SmsReceiptStatus.DELIVERED if code is None else SmsReceiptStatus.FAILED,
        code=code,
        received_at=datetime.now(UTC),
    )
    blocks = Suppression(
        channel=Channel.WECHAT,
        address=f"{account}/{openid}",
        reason=SuppressionReason.BOUNCED,
        cause=f"WeChat {USER_BLOCK}",
    )
    try:
        new = await registry.sms_receipts.record(receipt, suppression=blocks if code == USER_BLOCK else None)
    except DeliveryNotFound:
        return False
    if new and code == NOT_GRANTED:
        await registry.wechat_grants.clear(Grantee(account, openid, target.template_id))
    if new:
        log.info(
            "wechat.receipt_recorded",
            status=str(receipt.status),
            code=code,
            event_key=key.event_key,
            subscription=key.subscription_id,
            provider_id=message_id,
        )
    return True
