"""Updates on a gateway: fetched whole, proven by signature, tried in a second slot, kept only if healthy."""
