"""Everything that dials an address that a tenant chose."""
