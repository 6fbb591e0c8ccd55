"""The HTTP skin: OpenAI's wire API over the service."""
