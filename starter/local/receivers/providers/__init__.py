"""Fakes of the providers of chat and push: servers on this machine that speak their protocols and can misbehave."""
