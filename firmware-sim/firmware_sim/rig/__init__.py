"""The rig: what drives simulated devices and an agent together and checks what comes out."""
