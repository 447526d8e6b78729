"""Any upstream that speaks OpenAI's HTTP dialect, as an engine."""
