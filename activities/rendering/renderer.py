"""Renderer: renders emails, SMS and webhooks from Jinja2 templates.

Templates in files are the operator's and are rendered in this process. A subscription's own templates are its tenant's; they
win, and TenantRenderer renders them in child processes. The data of events reaches both as plain JSON and is never compiled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, TemplateError, TemplateNotFound, meta

from activities.rendering.html.final import FinalHtml, finish, is_small
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.faults import fault_of
from activities.rendering.sandbox.markup import MARKUPS
from activities.rendering.sandbox.output import render
from activities.rendering.template_files import DEFAULT, FILE_OF, SUBJECT, TemplateFiles, check_path, is_partial
from activities.rendering.tenant_renderer import TenantRenderer
from activities.rendering.text import one_line
from bellwire.errors import TemplateInvalid
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from bellwire.targets.chat.wechat_fields import check_fields

#: Longest subject, in characters.
MAX_SUBJECT = 200

_BUILT_IN = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True, kw_only=True)
class EmailText:
    """A rendered mail. `subject` is one line; `text` is derived from the HTML if there is no template for it.

    `html` is final: styles are inlined, and what mails must not contain is removed. None if there is only text.
    """

    subject: str
    text: str
    html: str | None = None


class Renderer:
    """Renders events for subscriptions. `folder` holds the operator's templates; None: the built-in ones only.

    Rendering raises TemplateInvalid, such as "template order.paid/email.txt line 3: total is missing". Its text names
    variables, never values. Changed files are read again, so a fixed template takes effect at once.
    """

    def __init__(self, folder: Path | None = None, *, tenants: TenantRenderer | None = None) -> None:
        self._files = TemplateFiles((folder, _BUILT_IN) if folder else (_BUILT_IN,))
        self._environment = TemplateEnvironment(FileSystemLoader(self._files.folders))
        self._tenants = tenants or TenantRenderer()

    async def close(self) -> None:
        """End the processes that render templates of tenants."""
        await self._tenants.close()

    async def email(self, request: SendRequest) -> EmailText:
        """The mail for this request. Text and HTML come from the same template, so that they say the same."""
        context = template_values(request)
        own = await self._render_own(request.subscription, context)
        subject = own.get("email.subject")
        if subject is None:
            subject = self._render_file(request, SUBJECT, context)
        text, html = own.get("email.text"), own.get("email.html")
        if text is None and html is None:
            text_file, html_file = self._files.find_body(template_name(request), request.subscription.locale)
            text = self._render(text_file, context) if text_file else None
            if html_file:
                final = await self._finish(request, html_file, context, with_text=text is None)
                text, html = final.text if text is None else text, final.html
        return EmailText(
            subject=one_line(subject, limit=MAX_SUBJECT) or one_line(request.event.type, limit=MAX_SUBJECT),
            text=(text or "").strip() + "\n",
            html=html,
        )

    async def text(self, request: SendRequest, name: str) -> str:
        """The text of a template that stands alone, such as sms.text, of any length. The channel limits it."""
        return (await self.texts(request, (name,)))[name]

    async def texts(self, request: SendRequest, names: Sequence[str]) -> dict[str, str]:
        """The texts of these templates of one channel, by name. In text of a chat, values are escaped for its markup."""
        context = template_values(request)
        own = await self._render_own(request.subscription, context)
        return {
            name: (
                own[name]
                if name in own
                else self._render_file(request, FILE_OF[name], context, markup=MARKUPS.get(name))
            ).strip()
            for name in names
        }

    def has(self, name: str, channel: Channel) -> bool:
        """Whether there is a template of this name for this channel, in any language."""
        return self._files.has(name, channel)

    def names(self) -> list[str]:
        """The names of all templates, the operator's and the built-in ones."""
        return self._files.names()

    def check(self) -> None:
        """Compile every template. Raises TemplateInvalid with the file and line of the first fault."""
        for folder in self._files.folders:
            if not folder.is_dir():
                raise TemplateInvalid(
                    f"template folder {folder} does not exist; create it, or unset BELLWIRE_TEMPLATES"
                )
        for file in self._files.all():
            if not is_partial(file):
                check_path(file)
            self._environment.budget.reset()
            try:
                source, _, _ = self._environment.loader.get_source(self._environment, file)  # type: ignore[union-attr]
                self._environment.get_template(file)
                for other in meta.find_referenced_templates(self._environment.parse(source)):
                    if other is not None:
                        self._environment.get_template(other)
            except Exception as error:  # a template can raise anything, also while it is compiled
                raise self._invalid(file, error) from None
            if file.endswith("/wechat.json"):
                _check_fields(file, source)

    async def _render_own(self, subscription: Subscription, context: Mapping[str, Any]) -> dict[str, str]:
        """The texts of the subscription's own templates."""
        templates = subscription.templates
        if not templates:
            return {}
        return await self._tenants.render(templates, sorted(templates), context, tenant=subscription.tenant)

    async def _finish(
        self, request: SendRequest, file: str, context: Mapping[str, Any], *, with_text: bool
    ) -> FinalHtml:
        """The HTML of a template of the operator as it is sent. A page that could take long is finished in a child."""
        html = self._render(file, context)
        if not is_small(html):
            return await self._tenants.finish(html, tenant=request.subscription.tenant, with_text=with_text)
        try:
            return finish(html, with_text=with_text)
        except Exception as error:
            raise self._invalid(file, error) from None

    def _render_file(
        self, request: SendRequest, file: str, context: Mapping[str, Any], markup: Callable[[str], str] | None = None
    ) -> str:
        found = self._files.find(template_name(request), request.subscription.locale, file)
        if found is None:
            raise TemplateInvalid(f"template {DEFAULT}/{file} does not exist")
        return self._render(found, context, markup)

    def _render(self, file: str, context: Mapping[str, Any], markup: Callable[[str], str] | None = None) -> str:
        try:
            return render(self._environment, file, lambda: self._environment.get_template(file), context, markup=markup)
        except Exception as error:  # a template can raise anything, and it must not affect other deliveries
            raise self._invalid(file, error) from None

    def _invalid(self, file: str, error: Exception) -> TemplateInvalid:
        if isinstance(error, TemplateNotFound) and not self._files.mention(str(error.name)):
            # The name was computed, perhaps from data. Errors contain no data.
            error = TemplateError("a template that it includes does not exist").with_traceback(error.__traceback__)
        return TemplateInvalid(fault_of(error, self._files.name_of).message(file))


def _check_fields(file: str, source: str) -> None:
    try:
        check_fields(source)
    except ValueError as error:
        raise TemplateInvalid(f"template {file}: {error}") from None


def template_name(request: SendRequest) -> str:
    """The name by which templates are found: what the subscription asks for, or the event's type."""
    return request.subscription.template or request.event.type


def template_values(request: SendRequest) -> dict[str, Any]:
    """The variables of templates, as plain JSON. Optional attributes of the event are null if they are not set."""
    optional = dict.fromkeys(("subject", "datacontenttype", "dataschema", "data"))
    subscription = request.subscription
    subscription_values = {
        "subscription_id": subscription.id,
        "tenant": subscription.tenant,
        "locale": subscription.locale,
    }
    return {**optional, **request.event.structured(), **subscription_values}
