"""OCPP 1.6J and 2.0.1: charging stations over WebSocket, with the central system's side tolerant of real stations."""
