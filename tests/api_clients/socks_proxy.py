"""A SOCKS5 proxy on loopback that leads every name to one port of this machine."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer


class SocksProxy(ThreadingTCPServer):
    """Listens from its making until it is closed; `asked` are the names and ports that were asked for."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.port, self.asked = port, list[tuple[str, int]]()
        self.url = f"socks5h://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Talk(StreamRequestHandler):
    wbufsize = 0

    def handle(self) -> None:
        assert isinstance(self.server, SocksProxy)
        self.rfile.read(self.rfile.read(2)[1])
        self.wfile.write(b"\5\0")
        assert self.rfile.read(4) == b"\5\1\0\3", "to connect to a name"
        name = self.rfile.read(self.rfile.read(1)[0]).decode()
        self.server.asked.append((name, int.from_bytes(self.rfile.read(2), "big")))
        with socket.create_connection(("127.0.0.1", self.server.port)) as there:
            self.wfile.write(b"\5\0\0\1" + bytes(6))
            threading.Thread(target=self._pass_on, args=(there,), daemon=True).start()
            with there.makefile("rb", 0) as answer:
                shutil.copyfileobj(answer, self.wfile)

    def _pass_on(self, there: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            while part := self.rfile.read1():
                there.sendall(part)
