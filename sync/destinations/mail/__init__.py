"""Mailers: destinations that take follow-up emails. One file per vendor."""
