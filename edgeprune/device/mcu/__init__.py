"""Microcontrollers: firmware built with the Arm compiler, and run in QEMU, which counts instructions.

Nothing outside `device` comes in here, but for `device.mcu.counting`.
"""
