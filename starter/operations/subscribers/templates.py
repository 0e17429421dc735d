"""Templates: which exist, what one renders to, and whether a tenant's own compile.

Rendering belongs to `activities`, which this package must not import: it runs `python -m activities.rendering.preview`.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel, Field, JsonValue

from bellwire.errors import TemplateInvalid
from bellwire.subscriptions import Subscription
from bellwire.targets import SPECS, Channel
from bellwire.targets.sms_segments import Segments, segments
from starter.checkout import CHECKOUT
from starter.operations.problems import OperationError

#: Where the built-in templates are.
BUILT_IN = CHECKOUT / "activities" / "templates"

#: Processes that render or check templates at a time; each takes a second of CPU, and programs of tenants can ask for many.
MAX_PROCESSES = 2
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

#: The files of a template's folder, each with its channels: chats share theirs.
_FILES = {
    file: {channel for channel, spec in SPECS.items() if file in spec.templates.values()}
    for each in SPECS.values()
    for file in each.templates.values()
}


class Sent(BaseModel):
    """What the provider of a channel gets, without the address."""

    message: JsonValue = Field(description="As the channel sends it; null if nothing is sent.")
    cut: list[str] = Field(description="Where in `message` a text was cut, such as `blocks.1.text.text`.")
    problem: str | None = Field(description="Why nothing is sent.")


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a template renders to."""

    #: The rendered texts by name, such as email.subject; None: the template has no such text.
    texts: Mapping[str, str | None]
    #: How the SMS is split; None without one.
    segments: Segments | None
    #: By channel: what the receiver gets, of channels whose messages are made of several texts.
    sent: Mapping[Channel, Sent]


def channels_by_template(folder: Path | None) -> dict[str, set[Channel]]:
    """The names of all templates, built-in and the operator's in `folder`, each with the channels it has text for."""
    found: dict[str, set[Channel]] = {}
    for root in (BUILT_IN, *([folder] if folder else [])):
        for file in sorted(root.rglob("*.*")):
            name = file.relative_to(root).parts[0]
            if file.name in _FILES and not name.startswith("_"):
                found.setdefault(name, set()).update(_FILES[file.name])
    return dict(sorted(found.items()))


async def preview(
    name: str,
    *,
    data: object,
    locale: str | None = None,
    folder: Path | None = None,
    sms_providers: Path | None = None,
    subscription: Subscription | None = None,
) -> Preview:
    """Render a template, or that of an event type, for every channel; with a subscription as it gets it.

    Raises TemplateInvalid, OperationError.
    """
    request: dict[str, Any] = {
        "name": name,
        "data": data,
        "locale": locale or "en",
        "folder": str(folder) if folder else None,
        "sms_providers": str(sms_providers) if sms_providers else None,
    }
    if subscription is not None:
        as_received = subscription.model_copy(update={"locale": locale} if locale else {})
        request["subscription"] = as_received.model_dump(mode="json", by_alias=True)
    rendered = await _render(request)
    sms = rendered["texts"].get("sms.text")
    return Preview(
        texts=rendered["texts"],
        segments=None if sms is None else segments(sms),
        sent={Channel(channel): Sent.model_validate(sent) for channel, sent in rendered["sent"].items()},
    )


async def check_templates(own: Sequence[Mapping[str, str]]) -> list[str | None]:
    """For each subscription's own templates, what is wrong with them by name and line, or None."""
    if not own:
        return []
    response = await _render({"check": [dict(templates) for templates in own]})
    faults: list[str | None] = response["faults"]
    return faults


async def _render(request: dict[str, Any]) -> dict[str, Any]:
    async with _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_PROCESSES)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "activities.rendering.preview"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
        )
        output, errors = await process.communicate(json.dumps(request).encode())
    if process.returncode:
        raise OperationError(f"activities.rendering.preview failed: {errors.decode(errors='replace').strip()[-2000:]}")
    response: dict[str, Any] = json.loads(output)
    if "error" in response:
        raise TemplateInvalid(response["error"])
    return response
