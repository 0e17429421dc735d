"""What the entry points share: settings, telemetry, readiness, supervision, slots, operational events."""
