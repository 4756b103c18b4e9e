"""Microcontrollers: firmware built with the Arm compiler, and run in QEMU, which counts instructions.

`boards` opens what is in `board`; nothing else of `device` comes in here.
"""
