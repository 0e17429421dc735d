"""What starts workflows: the command line, the embedded stack of `dev`, and the demo."""
