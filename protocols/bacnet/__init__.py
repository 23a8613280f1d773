"""BACnet/IP: the wire belongs to a library, see the README."""
