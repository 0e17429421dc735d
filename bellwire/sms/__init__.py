"""SMS: error codes of providers and delivery receipts, for workers and the gateway."""
