"""JT/T 808: vehicle terminals (dump trucks, taxis, buses) and the platform they dial."""
