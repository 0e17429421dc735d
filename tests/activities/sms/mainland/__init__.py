"""Tests of SMS to mainland China."""
