"""Many gateways and devices at once: found by a question, tagged, grouped, brought in and taken out as tables."""
