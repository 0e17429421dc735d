"""What a subscription delivers to: one module per channel says what an address is."""
