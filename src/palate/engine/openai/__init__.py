"""Black-box experts behind OpenAI-compatible servers."""
