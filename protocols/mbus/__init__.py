"""Wired M-Bus (EN 13757-2, -3): heat, water, gas and power meters of European make."""
