"""Users, principals, credentials and the audit log."""
