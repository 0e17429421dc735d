"""Filters: type patterns and the filter dialects of CloudEvents. No I/O, no state."""

from bellwire.filters.compiled import CompiledFilters
from bellwire.filters.dialects import All, Any, Data, Exact, Filter, Not, Prefix, Sql, Suffix, matches
from bellwire.filters.event_view import EventView
from bellwire.filters.patterns import TypePattern, patterns_matching, type_matches
from bellwire.filters.tracing import Trace, trace, traced

__all__ = [
    "All",
    "Any",
    "CompiledFilters",
    "Data",
    "EventView",
    "Exact",
    "Filter",
    "Not",
    "Prefix",
    "Sql",
    "Suffix",
    "Trace",
    "TypePattern",
    "matches",
    "patterns_matching",
    "trace",
    "traced",
    "type_matches",
]
