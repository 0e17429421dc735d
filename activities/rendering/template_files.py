"""TemplateFiles: the template files of the operator and the built-in ones.

A template is a folder named like an event type (or like a subscription's `template`) with one file for each text:

    order.paid/email.subject.txt  email.txt  email.html  sms.txt  webhook.json
    order.paid/zh-CN/email.txt    the same text in another language
    order.paid/webhook.json       in which each {{ … }} writes a JSON value: {"order": {{ data.order }}}

Other templates extend or include files and folders whose names begin with _. The operator's folder is searched before the
built-in one, so its `_layout.html` changes the look of every mail.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from bellwire.errors import TemplateInvalid
from bellwire.targets import SPECS, Channel

#: The template for events without one of their own.
DEFAULT = "default"

#: The file of each template, by the name that subscriptions use: sms.text, ….
FILE_OF = {name: file for spec in SPECS.values() for name, file in spec.templates.items()}
FILES = frozenset(FILE_OF.values())
SUBJECT, TEXT, HTML = FILE_OF["email.subject"], FILE_OF["email.text"], FILE_OF["email.html"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIXES = {".txt", ".html", ".json"}


class TemplateFiles:
    """Finds template files in `folders`; the first folder wins. Files are named relative to their folder."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders = folders

    def find(self, name: str, locale: str, file: str) -> str | None:
        """The most specific file of this template and locale, or of the template `default`; None if there is none."""
        for folder, place in self._places(name, locale):
            if (folder / place / file).is_file():
                return f"{place}/{file}"
        return None

    def find_body(self, name: str, locale: str) -> tuple[str | None, str | None]:
        """Text and HTML file of the most specific place that has one of them. Raises TemplateInvalid if no place has."""
        for folder, place in self._places(name, locale):
            text, html = ((folder / place / file).is_file() for file in (TEXT, HTML))
            if text or html:
                return f"{place}/{TEXT}" if text else None, f"{place}/{HTML}" if html else None
        raise TemplateInvalid(f"template {DEFAULT}/{TEXT} does not exist")

    def has(self, name: str, channel: Channel) -> bool:
        """Whether there is a template of this name for this channel, in any language."""
        files = frozenset(SPECS[channel].templates.values())
        return bool(_NAME.fullmatch(name)) and any(
            file.name in files for folder in self.folders for file in (folder / name).rglob("*")
        )

    def names(self) -> list[str]:
        """The names of all templates."""
        return sorted({file.split("/")[0] for file in self.all() if "/" in file and not is_partial(file)})

    def all(self) -> list[str]:
        """All template files."""
        found = {
            path.relative_to(folder).as_posix()
            for folder in self.folders
            for path in folder.rglob("*")
            if path.suffix in _SUFFIXES and path.is_file()
        }
        return sorted(found)

    def name_of(self, path: str) -> str | None:
        """The template file at an absolute path; None if it is in none of the folders."""
        file = Path(path)
        for folder in self.folders:
            if file.suffix in _SUFFIXES and file.is_relative_to(folder):
                return file.relative_to(folder).as_posix()
        return None

    def mention(self, name: str) -> bool:
        """Whether any template contains this name in quotes."""
        sources = (folder / file for folder in self.folders for file in self.all() if (folder / file).is_file())
        return any(f"{quote}{name}{quote}" in path.read_text(errors="replace") for path in sources for quote in "'\"")

    def _places(self, name: str, locale: str) -> Iterator[tuple[Path, str]]:
        """Folder and subfolder of each candidate, the most specific first: by locale, then without, then `default`."""
        for template in (name, DEFAULT) if _NAME.fullmatch(name) else (DEFAULT,):
            for place in (*(f"{template}/{each}" for each in _fallbacks(locale)), template):
                for folder in self.folders:
                    yield folder, place


def is_partial(file: str) -> bool:
    """Whether the file is only for other templates to extend or include."""
    return any(step.startswith("_") for step in file.split("/"))


def check_path(file: str) -> None:
    """Raise TemplateInvalid if no event can use a file at this path."""
    *folders, last = file.split("/")
    if last not in FILES:
        raise TemplateInvalid(f"template {file}: unknown file name {last}; use one of {', '.join(sorted(FILES))}")
    if not 1 <= len(folders) <= 2 or not _NAME.fullmatch(folders[0]):
        raise TemplateInvalid(f"template {file}: the path must be NAME/{last} or NAME/LOCALE/{last}")
    if len(folders) == 2 and folders[1] != _canonical(folders[1]):
        raise TemplateInvalid(f"template {file}: write the locale as {_canonical(folders[1])}")


def _canonical(locale: str) -> str:
    """The locale (BCP 47) in its usual case: zh-CN, zh-Hans, en."""
    language, *subtags = locale.split("-")
    cased = (tag.upper() if len(tag) == 2 else tag.title() if len(tag) == 4 else tag.lower() for tag in subtags)
    return "-".join((language.lower(), *cased))


def _fallbacks(locale: str) -> list[str]:
    """The locale and its more general ones: zh-Hans-CN, zh-Hans, zh (RFC 4647 §3.4, "Lookup")."""
    subtags = _canonical(locale).split("-")
    return ["-".join(subtags[:length]) for length in range(len(subtags), 0, -1)]
