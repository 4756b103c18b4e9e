"""Releases on boards: pushed, activated, gone back to, signed.

For `edgeprune release`.
"""
