"""Twins: what the city wants in force on a gateway, and what is."""
