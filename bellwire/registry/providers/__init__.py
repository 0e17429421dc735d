"""What is stored about the accounts with providers."""
