"""Rendering of templates: operators' in this process, tenants' in confined child processes."""
