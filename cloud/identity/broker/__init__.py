"""The broker's rules, from the registry."""
