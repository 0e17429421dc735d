"""Renderer: the text of emails and SMS, from Jinja2 templates on disk.

A template is a folder named like an event type (or like a subscription's `template`), and in it one file per part:

    order.paid/email.subject.txt  email.txt  email.html  sms.txt
    order.paid/zh-CN/email.txt    the same part in another language

Files and folders whose names begin with _ are for other templates to extend or include. The operator's folder is looked
into before the built-in one, so a `_layout.html` there gives every mail another look.

Templates are the operator's, data is the publisher's: data reaches templates as plain JSON and is never compiled.
Jinja2's sandbox bounds neither CPU nor memory, so templates that tenants wrote must not be put here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from activities.templates.filters import moment, one_line, printable, rows, text_of
from bellwire.errors import TemplateInvalid
from bellwire.events import Event
from bellwire.subscriptions import Channel, Subscription

#: Longest subject, in characters.
MAX_SUBJECT = 200
#: Largest rendered part, in bytes of UTF-8.
MAX_OUTPUT_BYTES = 256 * 1024
#: The template for events that have none of their own.
DEFAULT = "default"

SUBJECT, TEXT, HTML, SMS = "email.subject.txt", "email.txt", "email.html", "sms.txt"
PARTS = frozenset({SUBJECT, TEXT, HTML, SMS})

_BUILT_IN = Path(__file__).parent / "templates"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WORD = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_SUFFIXES = {".txt", ".html"}


@dataclass(frozen=True, kw_only=True)
class EmailText:
    """What a mail says. `subject` is one line; `html` is None if the template has text only."""

    subject: str
    text: str
    html: str | None = None


class _Missing(StrictUndefined):
    """A variable that is not there, in the words of the person who mends the template."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        # A name that is not a word was computed, perhaps from data, and errors name no data.
        known = isinstance(self._undefined_name, str) and _WORD.fullmatch(self._undefined_name)
        return f"{self._undefined_name} is missing" if known else "a variable is missing"


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """`data.items` is the field "items" of the data, not the method of dict that Jinja2 would prefer."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What stands in brackets may come from data, word or not, so that nothing is told of it if it is missing."""
        found = super().getitem(obj, argument)
        unnamed = isinstance(found, _Missing) and not found._undefined_hint
        return self.undefined(obj=obj, name="") if unnamed else found


class Renderer:
    """Renders events for subscriptions. `folder` holds the operator's templates; None for the built-in ones only.

    What renders raises TemplateInvalid: "template order.paid/email.txt line 3: total is missing". Its text names
    variables, never values. Files are read again once they have changed, so a mended template works at once.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folders = (folder, _BUILT_IN) if folder else (_BUILT_IN,)
        self._environment = _Environment(
            loader=FileSystemLoader(self._folders),
            undefined=_Missing,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(moment=moment, rows=rows)

    def email(self, event: Event, subscription: Subscription) -> EmailText:
        """The mail for this event. Text and HTML come from the same folder, so that they never tell two stories."""
        context = _context(event, subscription)
        subject = one_line(self._part(event, subscription, SUBJECT, context), limit=MAX_SUBJECT)
        text_file, html_file = self._body(event, subscription)
        html = printable(self._render(html_file, context)) if html_file else None
        text = printable(self._render(text_file, context)) if text_file else text_of(html or "")
        return EmailText(
            subject=subject or one_line(event.type, limit=MAX_SUBJECT), text=text.strip() + "\n", html=html
        )

    def sms(self, event: Event, subscription: Subscription) -> str:
        """The SMS for this event, of any length: what is too long is for the channel to say."""
        return printable(self._part(event, subscription, SMS, _context(event, subscription))).strip()

    def has(self, name: str, channel: Channel) -> bool:
        """Whether there is a template of this name, in any language, for this channel. Webhooks have none."""
        wanted = {Channel.EMAIL: {TEXT, HTML}, Channel.SMS: {SMS}}.get(channel, set())
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
            try:
                source, _, _ = self._environment.loader.get_source(self._environment, file)  # type: ignore[union-attr]
                self._environment.get_template(file)
                named = meta.find_referenced_templates(self._environment.parse(source))
                for other in named:
                    if other is not None:
                        self._environment.get_template(other)
            except (TemplateError, UnicodeDecodeError) as error:
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
        for _, place in self._places(event, subscription):
            if any((folder / place / part).is_file() for folder in self._folders):
                return self._render(f"{place}/{part}", context)
        raise TemplateInvalid(f"template {DEFAULT}/{part} does not exist")

    def _body(self, event: Event, subscription: Subscription) -> tuple[str | None, str | None]:
        for folder, place in self._places(event, subscription):
            text, html = ((folder / place / part).is_file() for part in (TEXT, HTML))
            if text or html:
                return f"{place}/{TEXT}" if text else None, f"{place}/{HTML}" if html else None
        raise TemplateInvalid(f"template {DEFAULT}/{TEXT} does not exist")

    def _places(self, event: Event, subscription: Subscription) -> Iterator[tuple[Path, str]]:
        """Folders to look into, the most specific first: by name and language, by name, and the same for `default`."""
        name = subscription.template or event.type
        for template in (name, DEFAULT) if _NAME.fullmatch(name) else (DEFAULT,):
            for place in (*(f"{template}/{locale}" for locale in _locales(subscription.locale)), template):
                for folder in self._folders:
                    yield folder, place

    def _render(self, file: str, context: dict[str, Any]) -> str:
        pieces: list[str] = []
        room = MAX_OUTPUT_BYTES
        try:
            for piece in self._environment.get_template(file).generate(context):
                pieces.append(piece)
                room -= len(piece.encode())
                if room < 0:
                    break
        except Exception as error:  # a template can raise anything, and none of it may take other deliveries along
            raise self._invalid(file, error) from error
        if room < 0:
            raise TemplateInvalid(f"template {file}: the result has more than {MAX_OUTPUT_BYTES:,} bytes")
        return "".join(pieces)

    def _invalid(self, file: str, error: Exception) -> TemplateInvalid:
        line: int | None = None
        if isinstance(error, TemplateSyntaxError):
            file, line = error.name or file, error.lineno
        else:
            file, line = self._running(error.__traceback__) or (file, None)
        match error:
            case TemplateNotFound():
                what = f"{error.name} does not exist"
            case UnicodeDecodeError():
                what = "is not UTF-8"
            case TemplateError():
                what = error.message or "is not valid"
            case _:
                what = type(error).__name__  # its text may quote data
        return TemplateInvalid(f"template {file}{f' line {line}' if line else ''}: {what}")

    def _running(self, traceback: TracebackType | None) -> tuple[str, int] | None:
        """File and line of the innermost template in a traceback, which Jinja2 rewrites so that it shows templates."""
        found = None
        while traceback is not None:
            path = Path(traceback.tb_frame.f_code.co_filename)
            for folder in self._folders:
                if path.suffix in _SUFFIXES and path.is_relative_to(folder):
                    found = path.relative_to(folder).as_posix(), traceback.tb_lineno
            traceback = traceback.tb_next
        return found


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
