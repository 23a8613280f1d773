"""The operators' console; see README.md."""
