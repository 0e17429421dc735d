"""Renders or checks templates for the command line, which must not import `activities`.

    python -m activities.rendering.preview

It reads one request from stdin and writes one response to stdout, both in JSON:

    {"name": template or event type, "data": …, "folder": the operator's templates or null, "locale": "en",
     "sms_providers": the operator's file or null}
        renders for each channel: {"texts": {"email.subject", "sms.text", …}, each a text or null, and "sent": what the
        receivers of channels get whose messages are made of several texts, and where a text was cut}
    the same with "subscription", a subscription as JSON, in place of "locale"
        renders what that subscription gets
    {"check": [the templates of one subscription, …]}
        compiles them: {"faults": [error message or null, …]}
    any of them
        if it fails: {"error": message}
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activities.as_sent import as_sent
from activities.rendering.renderer import Renderer
from activities.rendering.template_files import DEFAULT, FILE_OF
from activities.rendering.tenant_renderer import TenantRenderer
from bellwire.errors import EventInvalid, TemplateInvalid, fields_in_error
from bellwire.events import Event
from bellwire.models import TRUSTED
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from bellwire.targets import SPECS, Channel


async def preview(request: dict[str, Any]) -> dict[str, Any]:
    """The rendered texts, and what receivers get. Raises TemplateInvalid, also for a name, locale or data that is not valid."""
    renderer = Renderer(Path(request["folder"]) if request["folder"] else None)
    try:
        event = Event(source="/preview", type=request["name"], subject="preview", data=request["data"])
        subscriptions = _subscriptions(request, renderer)
    except EventInvalid as error:
        raise TemplateInvalid(str(error)) from error
    except ValidationError as error:
        raise TemplateInvalid(fields_in_error(error)) from error
    texts: dict[str, str | None] = dict.fromkeys(FILE_OF)
    sent: dict[str, object] = {}
    providers = Path(given) if (given := request.get("sms_providers")) else None
    try:
        for subscription in subscriptions:
            one = SendRequest.unrecorded(subscription, event)
            texts |= await _texts(renderer, one)
            if (found := await as_sent(renderer, one, providers)) is not None:
                sent[subscription.channel] = asdict(found)
    finally:
        await renderer.close()
    return {"texts": texts, "sent": sent}


async def _texts(renderer: Renderer, request: SendRequest) -> dict[str, str | None]:
    """What the channel of the request would send, by the names of its templates."""
    channel = request.subscription.channel
    if channel is Channel.EMAIL:
        email = await renderer.email(request)
        return {"email.subject": email.subject, "email.text": email.text, "email.html": email.html}
    return {**await renderer.texts(request, tuple(SPECS[channel].templates))}


def _subscriptions(request: dict[str, Any], renderer: Renderer) -> list[Subscription]:
    """The requested subscription, or one for each channel that uses a template."""
    if given := request.get("subscription"):
        return [Subscription.model_validate(given, context=TRUSTED)]
    return [
        Subscription.model_validate(
            {"tenant": "preview", "types": ["*"], "target": spec.example, "locale": request["locale"]}
        )
        for spec in SPECS.values()
        # A webhook carries the event itself, unless there is a template for it.
        if spec.example.is_rendered or any(renderer.has(name, spec.channel) for name in (request["name"], DEFAULT))
    ]


async def check(templates: list[dict[str, str]]) -> list[str | None]:
    """The first fault in the templates of each subscription, or None."""
    tenants = TenantRenderer(processes=1)
    faults: list[str | None] = [None] * len(templates)
    try:
        for number, sources in enumerate(templates):
            try:
                await tenants.check(sources)
            except TemplateInvalid as error:
                faults[number] = str(error)
    finally:
        await tenants.close()
    return faults


async def respond(request: dict[str, Any]) -> dict[str, Any]:
    """The response to a request. Raises TemplateInvalid."""
    return {"faults": await check(request["check"])} if "check" in request else await preview(request)


def main() -> None:
    request = json.load(sys.stdin)
    response: dict[str, Any]
    try:
        response = asyncio.run(respond(request))
    except TemplateInvalid as error:
        response = {"error": str(error)}
    sys.stdout.write(json.dumps(response))


if __name__ == "__main__":
    main()
