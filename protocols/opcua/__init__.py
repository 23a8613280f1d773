"""OPC UA: the wire belongs to a library, see the README."""
