"""What starts workflows and serves people: the command line, the HTTP gateway, and the embedded stack of `dev` and `demo`."""
