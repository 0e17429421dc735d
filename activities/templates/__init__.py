"""The built-in templates, and the functions that templates can call."""
