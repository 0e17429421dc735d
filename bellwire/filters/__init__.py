"""Filters: type patterns and the filter dialects of CloudEvents. No I/O, no state."""

from bellwire.filters.dialects import All, Any, Exact, Filter, Not, Prefix, Suffix, matches
from bellwire.filters.patterns import TypePattern, patterns_matching, type_matches

__all__ = [
    "All",
    "Any",
    "Exact",
    "Filter",
    "Not",
    "Prefix",
    "Suffix",
    "TypePattern",
    "matches",
    "patterns_matching",
    "type_matches",
]
