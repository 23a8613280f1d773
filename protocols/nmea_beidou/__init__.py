"""NMEA 0183 sentences of GNSS receivers and instruments, and BeiDou short messages."""
