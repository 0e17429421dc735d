"""The Jinja2 sandbox: bounded functions, budget, child process."""
