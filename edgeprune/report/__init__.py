"""A run's report as a page, pictures and JUnit."""
