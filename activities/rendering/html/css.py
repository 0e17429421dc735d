"""Removes from CSS what can run code or load documents: unsafe URLs, unknown functions, behaviors, @import.

CSS is parsed to tokens, so escapes and comments hide nothing. What remains is written again from the tokens. Media queries,
:hover and other rules that cannot be inlined stay.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import tinycss2  # type: ignore[import-untyped]

from activities.rendering.html.safe_urls import is_safe_url

_COLORS = "color color-mix device-cmyk hsl hsla hwb lab lch light-dark oklab oklch rgb rgba"
_IMAGES = "conic-gradient gradient image-set linear-gradient radial-gradient repeating-conic-gradient url src"
_MORE_IMAGES = "repeating-linear-gradient repeating-radial-gradient color-stop from to"
_NUMBERS = (
    "abs attr calc clamp counter counters cubic-bezier env max min minmax repeat fit-content round steps linear var"
)
_EFFECTS = "alpha blur brightness contrast drop-shadow grayscale hue-rotate invert opacity saturate sepia"
_SHAPES = "circle ellipse inset path polygon rect xywh"
_TRANSFORMS = (
    "matrix matrix3d perspective rotate rotate3d rotatex rotatey rotatez scale scale3d scalex scaley scalez skew"
)
_MORE_TRANSFORMS = "skewx skewy translate translate3d translatex translatey translatez"
_FONTS = "format local tech"
_SELECTORS = "has is lang not nth-child nth-last-child nth-last-of-type nth-of-type selector style where"
#: The functions that values may use, without the prefixes of vendors. No function of these runs code.
FUNCTIONS = frozenset(
    " ".join((_COLORS, _IMAGES, _MORE_IMAGES, _NUMBERS, _EFFECTS, _SHAPES, _TRANSFORMS, _MORE_TRANSFORMS, _FONTS, _SELECTORS))
    .split()
)  # fmt: skip
#: Properties whose URL is a program.
_PROGRAMS = frozenset({"behavior", "behaviour", "binding"})
_VENDOR = re.compile(r"[_*]*(?:-(?:webkit|moz|ms|o|khtml)-)?")

#: At-rules whose block contains rules, and those whose block contains declarations.
_RULE_BLOCKS = frozenset(
    {"media", "supports", "layer", "container", "keyframes", "-webkit-keyframes", "-moz-keyframes"}
)
_DECLARATION_BLOCKS = frozenset({"font-face", "viewport", "-ms-viewport"})
#: Levels of at-rules within at-rules.
_MAX_LEVELS = 4

#: Without one of these there is no function, URL, escape, comment or block, and so nothing to remove.
_NOT_PLAIN = re.compile(r"[(\\{}@<\x00-\x08\x0b-\x1f]|/\*")


@lru_cache(maxsize=2_048)
def safe_declarations(css: str) -> str:
    """The safe declarations of a `style` attribute."""
    if len(css) < 1_000 and not _NOT_PLAIN.search(css):
        return css
    return "; ".join(_declarations(css))


@lru_cache(maxsize=64)
def safe_sheet(css: str) -> str:
    """The safe rules of a `style` element, one a line. They contain no "<", so they cannot end the element."""
    return "\n".join(rule for rule in _rules(css, _MAX_LEVELS) if "<" not in rule)


def _rules(css: Any, levels: int) -> Iterator[str]:
    for rule in tinycss2.parse_rule_list(css, skip_comments=True, skip_whitespace=True):
        if rule.type not in {"qualified-rule", "at-rule"} or not _is_safe(rule.prelude):
            continue
        name = "" if rule.type == "qualified-rule" else rule.lower_at_keyword
        if not name or name in _DECLARATION_BLOCKS:
            body = "; ".join(_declarations(rule.content or ()))
        elif name in _RULE_BLOCKS and levels:
            body = " ".join(_rules(rule.content or (), levels - 1))
        else:
            continue
        if body:
            prelude = " ".join(part for part in (f"@{name}" if name else "", _written(rule.prelude)) if part)
            yield f"{prelude} {{ {body} }}"


def _declarations(css: Any) -> Iterator[str]:
    for part in tinycss2.parse_blocks_contents(css, skip_comments=True, skip_whitespace=True):
        if part.type != "declaration" or _VENDOR.sub("", part.lower_name, count=1) in _PROGRAMS:
            continue
        if _is_safe(part.value) and (text := _written([part]).rstrip(";")):
            yield text


def _written(tokens: Iterable[Any]) -> str:
    """The tokens as CSS; empty if they are nested too deeply."""
    try:
        return str(tinycss2.serialize(tokens)).strip()
    except RecursionError:
        return ""


def _is_safe(tokens: Iterable[Any]) -> bool:
    """Whether a value or prelude contains only allowed functions and URLs."""
    pending = [(token, False) for token in tokens]
    while pending:
        token, in_function = pending.pop()
        match token.type:
            case "url":
                if not is_safe_url(token.value):
                    return False
            case "string":  # some functions take a URL as a string
                if in_function and not is_safe_url(token.value):
                    return False
            case "function":
                if _VENDOR.sub("", token.lower_name, count=1) not in FUNCTIONS:
                    return False
                pending.extend((each, True) for each in token.arguments)
            case "() block" | "[] block":
                pending.extend((each, in_function) for each in token.content)
            case "{} block" | "error" | "at-keyword":
                return False
    return True
