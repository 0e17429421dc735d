"""The Jinja2 sandbox: allowed functions and attributes, a budget, checked output, and the child process for tenants."""
