"""Device models: code for the mechanics of a protocol, data (type file, signals) for what a device is."""
