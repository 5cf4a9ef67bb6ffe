"""The imitation CRM: HubSpot-shaped, on its own loopback port, with its own file."""
