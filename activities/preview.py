"""`python -m activities.preview`: renders one template, asked on stdin and answered on stdout, both in JSON.

Asked: {"name": template or event type, "data": …, "locale": "en", "folder": the operator's templates or null}.
Answered: {"subject", "text", "html", "sms", "webhook"}, each a text or null; or {"error": what is wrong}. It exists so that the
command line, which may not import activities, shows what the channels would send.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activities.rendering import Renderer
from bellwire.errors import TemplateInvalid, fields_in_error
from bellwire.events import Event
from bellwire.subscriptions import Channel, SmsTarget, Subscription


def preview(request: dict[str, Any]) -> dict[str, str | None]:
    """The parts of the template. Raises TemplateInvalid, also for a name, locale or data that no event could have."""
    try:
        event = Event(source="/preview", type=request["name"], subject="preview", data=request["data"])
        target = SmsTarget(to="+14155550123")
        wish = Subscription(tenant="preview", types=("*",), target=target, locale=request["locale"])
    except ValidationError as error:
        raise TemplateInvalid(fields_in_error(error)) from error
    renderer = Renderer(Path(request["folder"]) if request["folder"] else None)
    email = renderer.email(event, wish)
    webhook = renderer.webhook(event, wish) if renderer.has(event.type, Channel.WEBHOOK) else None
    return {
        "subject": email.subject,
        "text": email.text,
        "html": email.html,
        "sms": renderer.sms(event, wish),
        "webhook": webhook,
    }


def main() -> None:
    answer: dict[str, str | None]
    try:
        answer = preview(json.load(sys.stdin))
    except TemplateInvalid as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
