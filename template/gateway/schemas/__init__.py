"""The bodies of OpenAI's routes, as they come."""
