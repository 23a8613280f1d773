"""CJ/T 188-2004 and -2018: water, gas and heat meters on RS-485 or on two M-Bus wires."""
