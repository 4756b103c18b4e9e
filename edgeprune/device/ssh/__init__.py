"""SSH: OpenSSH's configuration, keys and known hosts, read as it reads them, and the connection.

The only room with paramiko; behind device.transports' protocol.
"""
