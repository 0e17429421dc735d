"""Patterns on the data of events, as EventBridge and SNS have them."""

from bellwire.filters.data.errors import PatternError
from bellwire.filters.data.explanation import explain
from bellwire.filters.data.pattern import MAX_STEPS, DataSize, Pattern, check_pattern, compile_pattern, size_of

__all__ = ["MAX_STEPS", "DataSize", "Pattern", "PatternError", "check_pattern", "compile_pattern", "explain", "size_of"]
