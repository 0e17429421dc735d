"""The HTTP API: publishing, and the resources that apps and operators use."""
