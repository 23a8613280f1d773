"""Reads of the core's database as typed functions; see README.md."""
