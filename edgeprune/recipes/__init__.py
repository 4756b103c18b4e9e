"""Recipes: the user's model and data, read and checked; and those that come with edgeprune, to be copied."""
