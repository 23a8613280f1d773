"""Simulated city devices on real transports or in virtual time; see firmware-sim/README.md."""
