"""The channels of chat providers: one file each, with one table of what the provider's answers mean."""
