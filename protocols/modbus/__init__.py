"""Modbus RTU, ASCII and TCP: frames and PDUs by pymodbus, resynchronisation, points and bus plan of our own."""
