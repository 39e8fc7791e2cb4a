"""One module per command or group of commands; `guardrail.cli` lists them."""
