"""Who sends webhooks: one file per vendor."""
