"""GB/T 26875.3-2011: fire alarm transmitters to the monitoring centre."""
