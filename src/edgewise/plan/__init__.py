"""L6: measure, predict, choose. What is measured here decides about speed, never about a bit."""
