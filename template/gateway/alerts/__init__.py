"""What the owner is alerted to, and how."""
