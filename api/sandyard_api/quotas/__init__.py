"""What an organization may use, and what it uses."""
