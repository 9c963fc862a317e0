"""The personalized inference server: FastAPI in front, Redis for users, vLLM behind. Never imports the trainer."""
