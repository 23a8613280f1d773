"""HJ 212-2017 (and 2005): environment stations to the platform."""
