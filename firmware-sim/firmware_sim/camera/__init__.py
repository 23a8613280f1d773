"""A street camera that does not exist: a drawn fire lane, served as a real H.264 stream.

Nothing heavy is imported here, so a rig without cameras needs neither OpenCV nor PyAV.
"""
