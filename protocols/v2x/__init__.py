"""V2X messages of roadside units and vehicles: T/CSAE 53 (YD/T 3709) and the SAE J2735 set, in unaligned PER."""
