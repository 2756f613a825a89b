"""An FTP server (pyftpdlib) in a process of its own: pyftpd.py ROOT HOST PORT USER PASSWORD [PEM].

With a file of certificate and key it wants TLS, for the data as well.
"""

from __future__ import annotations

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer


def serve(root: str, host: str, port: int, user: str, password: str, pem: str = "") -> None:
    """Until it is killed."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(user, password, root, perm="elr")
    secure = {"certfile": pem, "tls_control_required": True, "tls_data_required": True}
    plain = {"authorizer": authorizer, "auth_failed_timeout": 0, "use_sendfile": False}
    base, attributes = (TLS_FTPHandler, {**plain, **secure}) if pem else (FTPHandler, plain)
    FTPServer((host, port), type("Handler", (base,), attributes)).serve_forever()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    serve(arguments[0], arguments[1], int(arguments[2]), *arguments[3:])
