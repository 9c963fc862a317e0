"""Structured outputs: bounded, tried in a process that may die of them, and watched while replies are written."""
