"""Microcontrollers over a serial line: the line, the commands of their firmware, and the board.

docs/serial.md describes the commands; `deploy/firmware/` speaks them.
"""
