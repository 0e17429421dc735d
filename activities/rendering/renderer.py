"""Renderer: the text of emails, SMS and webhooks, from Jinja2 templates.

A template is a folder named like an event type (or like a subscription's `template`), and in it one file per part:

    order.paid/email.subject.txt  email.txt  email.html  sms.txt  webhook.json
    order.paid/zh-CN/email.txt    the same part in another language
    order.paid/webhook.json       in which each {{ … }} writes a JSON value: {"order": {{ data.order }}}

Files and folders whose names begin with _ are for other templates to extend or include. The operator's folder is looked
into before the built-in one, so a `_layout.html` there gives every mail another look.

These templates are the operator's and are rendered here; the `templates` of a subscription are its tenant's, win over them,
and are rendered by TenantTemplates. Data is the publisher's: it reaches both as plain JSON and is never compiled.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, TemplateError, TemplateNotFound, meta

from activities.rendering.html import html_to_text
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.output import MAX_OUTPUT_BYTES as MAX_OUTPUT_BYTES
from activities.rendering.sandbox.output import fault_of, render
from activities.rendering.tenant_renderer import TenantTemplates
from activities.rendering.text import one_line
from bellwire.errors import TemplateInvalid
from bellwire.events import Event
from bellwire.sends import SendRequest
from bellwire.subscriptions import Channel, Subscription

#: Longest subject, in characters.
MAX_SUBJECT = 200
#: The template for events that have none of their own.
DEFAULT = "default"

SUBJECT, TEXT, HTML, SMS, WEBHOOK = "email.subject.txt", "email.txt", "email.html", "sms.txt", "webhook.json"
PARTS = frozenset({SUBJECT, TEXT, HTML, SMS, WEBHOOK})

_BUILT_IN = Path(__file__).parents[1] / "templates"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIXES = {".txt", ".html", ".json"}
_OF_CHANNEL = {Channel.EMAIL: {TEXT, HTML}, Channel.SMS: {SMS}, Channel.WEBHOOK: {WEBHOOK}}


@dataclass(frozen=True, kw_only=True)
class EmailText:
    """What a mail says. `subject` is one line; `text` or `html` is None if the template has only the other."""

    subject: str
    text: str | None
    html: str | None = None

    @cached_property
    def plain(self) -> str:
        """The text; what can be read of the HTML, if there is no other."""
        return html_to_text(self.html or "") + "\n" if self.text is None else self.text


class Renderer:
    """Renders events for subscriptions. `folder` holds the operator's templates; None for the built-in ones only.

    What renders raises TemplateInvalid: "template order.paid/email.txt line 3: total is missing". Its text names
    variables, never values. Files are read again once they have changed, so a mended template works at once.
    """

    def __init__(self, folder: Path | None = None, *, tenants: TenantTemplates | None = None) -> None:
        self._folders = (folder, _BUILT_IN) if folder else (_BUILT_IN,)
        self._environment = TemplateEnvironment(FileSystemLoader(self._folders))
        self._tenants = tenants or TenantTemplates()

    async def close(self) -> None:
        """End the processes that render for tenants."""
        await self._tenants.close()

    async def email(self, request: SendRequest) -> EmailText:
        """The mail for this request. Text and HTML come from one hand, so that they never tell two stories."""
        event, subscription = request.event, request.subscription
        context = _context(event, subscription)
        own = await self._own(subscription, context)
        subject = own.get("email.subject")
        if subject is None:
            subject = self._part(event, subscription, SUBJECT, context)
        text, html = own.get("email.text"), own.get("email.html")
        if text is None and html is None:
            text_file, html_file = self._body(event, subscription)
            html = self._render(html_file, context) if html_file else None
            text = self._render(text_file, context) if text_file else None
        return EmailText(
            subject=one_line(subject, limit=MAX_SUBJECT) or one_line(event.type, limit=MAX_SUBJECT),
            text=None if text is None else text.strip() + "\n",
            html=html,
        )

    async def sms(self, request: SendRequest) -> str:
        """The SMS for this request, of any length: what is too long is for the channel to say."""
        return (await self._only(request, "sms.text", SMS)).strip()

    async def webhook(self, request: SendRequest) -> str:
        """The JSON body of a webhook that is rendered."""
        return (await self._only(request, "webhook.json", WEBHOOK)).strip()

    async def _only(self, request: SendRequest, part: str, file: str) -> str:
        event, subscription = request.event, request.subscription
        context = _context(event, subscription)
        own = await self._own(subscription, context)
        return own[part] if part in own else self._part(event, subscription, file, context)

    async def _own(self, subscription: Subscription, context: Mapping[str, Any]) -> dict[str, str]:
        """The texts of the parts that the tenant wrote."""
        templates = subscription.templates
        return await self._tenants.render(templates, sorted(templates), context) if templates else {}

    def has(self, name: str, channel: Channel) -> bool:
        """Whether there is a template of this name, in any language, for this channel."""
        wanted = _OF_CHANNEL[channel]
        return bool(_NAME.fullmatch(name)) and any(
            file.name in wanted for folder in self._folders for file in (folder / name).rglob("*")
        )

    def names(self) -> list[str]:
        """The names of all templates, the operator's and the built-in ones."""
        return sorted({file.split("/")[0] for file in self._files() if "/" in file and not _partial(file)})

    def check(self) -> None:
        """Compile every template. Raises TemplateInvalid, which names the file and line of the first that is wrong."""
        for folder in self._folders:
            if not folder.is_dir():
                raise TemplateInvalid(
                    f"template folder {folder} does not exist; create it, or unset BELLWIRE_TEMPLATES"
                )
        for file in self._files():
            if not _partial(file):
                _check_path(file)
            self._environment.budget.reset()
            try:
                source, _, _ = self._environment.loader.get_source(self._environment, file)  # type: ignore[union-attr]
                self._environment.get_template(file)
                named = meta.find_referenced_templates(self._environment.parse(source))
                for other in named:
                    if other is not None:
                        self._environment.get_template(other)
            except Exception as error:  # a template can raise anything, also while it is compiled
                raise self._invalid(file, error) from error

    def _files(self) -> list[str]:
        """All template files of all folders, relative to their folder."""
        found = {
            path.relative_to(folder).as_posix()
            for folder in self._folders
            for path in folder.rglob("*")
            if path.suffix in _SUFFIXES and path.is_file()
        }
        return sorted(found)

    def _part(self, event: Event, subscription: Subscription, part: str, context: dict[str, Any]) -> str:
        file = self._file(event, subscription, part)
        if file is None:
            raise TemplateInvalid(f"template {DEFAULT}/{part} does not exist")
        return self._render(file, context)

    def _file(self, event: Event, subscription: Subscription, part: str) -> str | None:
        for folder, place in self._places(event, subscription):
            if (folder / place / part).is_file():
                return f"{place}/{part}"
        return None

    def _body(self, event: Event, subscription: Subscription) -> tuple[str | None, str | None]:
        for folder, place in self._places(event, subscription):
            text, html = ((folder / place / part).is_file() for part in (TEXT, HTML))
            if text or html:
                return f"{place}/{TEXT}" if text else None, f"{place}/{HTML}" if html else None
        raise TemplateInvalid(f"template {DEFAULT}/{TEXT} does not exist")

    def _places(self, event: Event, subscription: Subscription) -> Iterator[tuple[Path, str]]:
        """Folders to look into, the most specific first: by name and language, by name, and the same for `default`."""
        name = _name(event, subscription)
        for template in (name, DEFAULT) if _NAME.fullmatch(name) else (DEFAULT,):
            for place in (*(f"{template}/{locale}" for locale in _locales(subscription.locale)), template):
                for folder in self._folders:
                    yield folder, place

    def _render(self, file: str, context: Mapping[str, Any]) -> str:
        try:
            return render(self._environment, file, lambda: self._environment.get_template(file), context)
        except Exception as error:  # a template can raise anything, and none of it may take other deliveries along
            raise self._invalid(file, error) from error

    def _invalid(self, file: str, error: Exception) -> TemplateInvalid:
        if isinstance(error, TemplateNotFound) and not self._is_written(str(error.name)):
            # The name was computed, perhaps from data, and errors name no data.
            error = TemplateError("a template that it includes does not exist").with_traceback(error.__traceback__)
        return TemplateInvalid(fault_of(error, self._named).told(file))

    def _is_written(self, name: str) -> bool:
        """Whether some template names it in quotes."""
        sources = (folder / file for folder in self._folders for file in self._files() if (folder / file).is_file())
        return any(f"{quote}{name}{quote}" in path.read_text(errors="replace") for path in sources for quote in "'\"")

    def _named(self, file: str) -> str | None:
        path = Path(file)
        for folder in self._folders:
            if path.suffix in _SUFFIXES and path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return None


def _name(event: Event, subscription: Subscription) -> str:
    return subscription.template or event.type


def _context(event: Event, subscription: Subscription) -> dict[str, Any]:
    """Plain JSON only. The optional attributes are null if they are not set, so that templates can ask for them."""
    optional = dict.fromkeys(("subject", "datacontenttype", "dataschema", "data"))
    ours = {"subscription_id": subscription.id, "tenant": subscription.tenant, "locale": subscription.locale}
    return {**optional, **event.structured(), **ours}


def _canonical(locale: str) -> str:
    """BCP 47 in its usual case: zh-CN, zh-Hans, en."""
    language, *subtags = locale.split("-")
    cased = (tag.upper() if len(tag) == 2 else tag.title() if len(tag) == 4 else tag.lower() for tag in subtags)
    return "-".join((language.lower(), *cased))


def _locales(locale: str) -> list[str]:
    """The locale, and what it is a kind of: zh-Hans-CN, zh-Hans, zh (RFC 4647 §3.4, "Lookup")."""
    subtags = _canonical(locale).split("-")
    return ["-".join(subtags[:length]) for length in range(len(subtags), 0, -1)]


def _partial(file: str) -> bool:
    return any(step.startswith("_") for step in file.split("/"))


def _check_path(file: str) -> None:
    *folders, part = file.split("/")
    if part not in PARTS:
        raise TemplateInvalid(f"template {file}: there is no part {part}; parts are {', '.join(sorted(PARTS))}")
    if not 1 <= len(folders) <= 2 or not _NAME.fullmatch(folders[0]):
        raise TemplateInvalid(f"template {file}: the place must be NAME/{part} or NAME/LOCALE/{part}")
    if len(folders) == 2 and folders[1] != _canonical(folders[1]):
        raise TemplateInvalid(f"template {file}: write the locale as {_canonical(folders[1])}")
