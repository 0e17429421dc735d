"""Hooks of the documentation site: pages from outside docs/, and a check that nothing is loaded from other hosts.

The changelog, the contributing guide and the examples are where people who read the checkout look for them. Links such as
`../examples/publish.py`, which work in the checkout, lead to pages of the site that show these files.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).parents[1]
#: Pages of the checkout, and where they are on the site.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}

#: A warning fails a strict build.
log = logging.getLogger("mkdocs.hooks")

_LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
#: Elements that a browser loads by itself.
_LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?P<source>(?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon|modulepreload))"
    r"[^>]*\bhref=[\"']?(?P<sheet>(?:https?:)?//[^\"'\s>]+)"
)
_LOADED_BY_CSS = re.compile(r"(?:url\([\"']?|@import\s+[\"'])(?P<source>(?:https?:)?//[^\"')\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog, the contributing guide, and a page for each file outside docs/ that a page links to."""
    for name, there in PAGES.items():
        if files.get_file_from_path(there) is None:
            files.append(File.generated(config, there, content=(CHECKOUT / name).read_text()))
    for page in list(files.documentation_pages()):
        for found in _LINK.finditer(page.content_string):
            target = _target(page.src_uri, found["target"])
            if _is_shown(target) and files.get_file_from_path(f"{target}.md") is None:
                shown = File.generated(
                    config, f"{target}.md", content=_listing(target), inclusion=InclusionLevel.NOT_IN_NAV
                )
                files.append(shown)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the checkout into links that hold on the site; show no navigation of one page."""
    if page.parent is None:
        page.meta.setdefault("hide", ["navigation"])
    source = page.file.src_uri

    def moved(found: re.Match[str]) -> str:
        target = _target(source, found["target"])
        if target in PAGES:
            there = PAGES[target]
        elif _is_shown(target):
            there = f"{target}.md"
        elif source in PAGES.values() and target.startswith("docs/"):
            there = target.removeprefix("docs/")
        else:
            return found[0]
        return posixpath.relpath(there, posixpath.dirname(source) or ".") + (found["anchor"] or "")

    return _LINK.sub(moved, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of every page and stylesheet that makes a browser load something from another host."""
    built = Path(config.site_dir)
    for pattern, loaded in (("*.html", _LOADED), ("*.css", _LOADED_BY_CSS)):
        for file in sorted(built.rglob(pattern)):
            for found in loaded.finditer(file.read_text()):
                address = next(group for group in found.groups() if group)
                log.warning("%s loads %s", file.relative_to(built), address)


def _target(source: str, link: str) -> str:
    """Where a link of a page leads, as a path in the checkout."""
    made_from = {page: name for name, page in PAGES.items() if not (CHECKOUT / "docs" / page).exists()}
    origin = made_from.get(source, f"docs/{source}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _is_shown(target: str) -> bool:
    """Whether a path in the checkout is a text file outside docs/ that has no page of its own."""
    if target.startswith(("docs/", "..")) or target in PAGES:
        return False
    return (CHECKOUT / target).is_file()


def _listing(name: str) -> str:
    """A page that shows a file. Searches do not find it: they would find code rather than what explains it."""
    text = (CHECKOUT / name).read_text()
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{Path(name).suffix.removeprefix('.')}\n{text}````\n"
