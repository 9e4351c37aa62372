"""The SSH gateway: logins by token, and each channel of a client as a conversation with its sandbox's daemon."""
