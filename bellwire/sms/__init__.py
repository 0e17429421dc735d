"""What workers and the gateway share about SMS: provider codes and delivery receipts."""
