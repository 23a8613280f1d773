"""Which gateways and devices belong to the city, and where they stand."""
