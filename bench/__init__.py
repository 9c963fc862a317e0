"""Experiments: a question each, lines that answer it, goals as numbers, results that are never overwritten."""
