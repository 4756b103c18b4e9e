"""What nets cost in milliseconds: layers as a runtime executes them, tables of measured ones, and their sum corrected.

Pure: numpy and scipy.
"""
