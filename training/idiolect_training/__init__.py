"""The offline trainer: preferences -> P-DPO -> evaluation -> bundle. Never imports the server."""
