"""GB/T 32960.3-2016 and -2025: electric vehicles to the monitoring platform."""
