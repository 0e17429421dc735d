"""`python -m activities.rendering.preview`: renders or checks templates; request on stdin, response on stdout, in JSON.

Asked to render: {"name": template or event type, "data": …, "folder": the operator's templates or null, and either
"locale" or "subscription": one as JSON}. Answered: {"subject", "text", "html", "sms", "webhook"}, each a text or null.
Asked to check: {"check": [the parts of one subscription, …]}. Answered: {"faults": [what is wrong or null, …]}.
Answered otherwise: {"error": what is wrong}. It exists so that the command line, which may not import activities, shows
what the channels would send.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activities.rendering.renderer import Renderer
from activities.rendering.tenant_renderer import TenantTemplates
from bellwire.errors import TemplateInvalid, fields_in_error
from bellwire.events import Event
from bellwire.models import TRUSTED
from bellwire.sends import SendRequest
from bellwire.subscriptions import Channel, Subscription

#: A target of each channel, which nothing is sent to.
_TARGETS = {
    Channel.EMAIL: {"channel": "email", "to": "ann@example.com"},
    Channel.SMS: {"channel": "sms", "to": "+14155550123"},
    Channel.WEBHOOK: {"channel": "webhook", "url": "https://app.example/hooks"},
}


async def preview(request: dict[str, Any]) -> dict[str, str | None]:
    """The parts of the template. Raises TemplateInvalid, also for a name, locale or data that no event could have."""
    try:
        event = Event(source="/preview", type=request["name"], subject="preview", data=request["data"])
        wishes = _wishes(request)
    except ValidationError as error:
        raise TemplateInvalid(fields_in_error(error)) from error
    renderer = Renderer(Path(request["folder"]) if request["folder"] else None)
    found: dict[str, str | None] = dict.fromkeys(("subject", "text", "html", "sms", "webhook"))
    try:
        for wish in wishes:
            sent = SendRequest.unrecorded(wish, event)
            match wish.channel:
                case Channel.EMAIL:
                    email = await renderer.email(sent)
                    found.update(subject=email.subject, text=email.plain, html=email.html)
                case Channel.SMS:
                    found.update(sms=await renderer.sms(sent))
                case Channel.WEBHOOK:
                    found.update(webhook=await renderer.webhook(sent))
    finally:
        await renderer.close()
    return found


def _wishes(request: dict[str, Any]) -> list[Subscription]:
    """The subscription that is asked for, or one of each channel that has a template."""
    if given := request.get("subscription"):
        return [Subscription.model_validate(given, context=TRUSTED)]
    return [
        Subscription.model_validate(
            {"tenant": "preview", "types": ["*"], "target": target, "locale": request["locale"]}
        )
        for channel, target in _TARGETS.items()
        if channel is not Channel.WEBHOOK or _has_webhook(request)
    ]


def _has_webhook(request: dict[str, Any]) -> bool:
    """Webhooks carry the event itself, unless there is a template for them."""
    renderer = Renderer(Path(request["folder"]) if request["folder"] else None)
    return any(renderer.has(name, Channel.WEBHOOK) for name in (request["name"], "default"))


async def check(written: list[dict[str, str]]) -> list[str | None]:
    """What is wrong with the parts of each subscription, or None."""
    tenants = TenantTemplates(processes=1)
    found: list[str | None] = [None] * len(written)
    try:
        for number, parts in enumerate(written):
            try:
                await tenants.check(parts)
            except TemplateInvalid as error:
                found[number] = str(error)
    finally:
        await tenants.close()
    return found


def main() -> None:
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        answer = {"faults": asyncio.run(check(asked["check"]))} if "check" in asked else asyncio.run(preview(asked))
    except TemplateInvalid as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
