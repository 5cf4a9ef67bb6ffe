"""Who gets contacts, chats and emails: one file per vendor."""
