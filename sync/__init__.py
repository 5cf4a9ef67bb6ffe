"""chat-crm-sync: every live-chat visitor in the CRM, once, correct, never lost. Start reading at `pipeline.py`."""
