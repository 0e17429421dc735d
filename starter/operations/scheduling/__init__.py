"""Schedules that publish events by the clock, and their ticks."""
