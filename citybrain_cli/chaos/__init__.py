"""Chaos as a product: a whole system at full load, seeded faults, and at the end a proof that nothing was lost."""
