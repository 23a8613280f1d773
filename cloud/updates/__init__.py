"""Updates from the core: the signed repository of artefacts, and rollouts that bring them to gateways in waves."""
