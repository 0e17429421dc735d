"""Hooks of the documentation site: pages from outside docs/, and a check that nothing is loaded from other hosts.

The changelog, the contributing guide and the examples stand where people who read the checkout look for them. Links such
as `../examples/publish.py`, which work in the checkout, lead to copies on the site.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).parents[1]
#: Pages of the checkout, and where they are on the site.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
#: Folders of the checkout whose files are copied to the site when a page links to them.
COPIED = ("examples",)

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
    """Add the changelog, the contributing guide and the examples."""
    for name, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=(CHECKOUT / name).read_text()))
    for folder in COPIED:
        for file in sorted((CHECKOUT / folder).glob("*.py")):
            files.append(File.generated(config, f"{folder}/{file.name}", abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the checkout into links that hold on the site."""
    source = page.file.src_uri
    origin = next((name for name, at in PAGES.items() if at == source and source != "index.md"), f"docs/{source}")

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), found["target"]))
        inside = PAGES.get(target) or (target if target.startswith(COPIED) else target.removeprefix("docs/"))
        if inside == target and not target.startswith(COPIED):
            return found["target"] + (found["anchor"] or "")
        return posixpath.relpath(inside, posixpath.dirname(source) or ".") + (found["anchor"] or "")

    return _LINK.sub(moved, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of every page and stylesheet that makes a browser load something from another host."""
    built = Path(config.site_dir)
    for pattern, loaded in (("*.html", _LOADED), ("*.css", _LOADED_BY_CSS)):
        for file in sorted(built.rglob(pattern)):
            for found in loaded.finditer(file.read_text()):
                address = next(group for group in found.groups() if group)
                log.warning("%s loads %s", file.relative_to(built), address)
