"""Votes of people without a language model: features of replies and heads that score them."""
