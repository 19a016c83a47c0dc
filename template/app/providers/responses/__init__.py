"""OpenAI's newer format of a chat, `/v1/responses`: spoken by a server itself, or translated."""
