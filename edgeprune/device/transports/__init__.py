"""How a board is reached: addresses, files and commands over adb, a process of this machine, or SSH.

Knows nothing of agents or models.
"""
