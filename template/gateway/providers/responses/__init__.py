"""The Responses API: the adapter of servers that speak it, and its translation to chats."""
