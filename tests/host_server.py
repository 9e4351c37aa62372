"""A server of a test's host: `http PORT`, `https PORT CERTIFICATE`, or `dns NAME=ADDRESS...`. Says `ready` first.

HTTP answers with a JSON object of method, path, headers and body: what it was asked.
"""

import json
import socket
import ssl
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
        content = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


def serve_http(port: int, certificate: str | None = None) -> None:
    server = ThreadingHTTPServer(("0.0.0.0", port), Echo)  # noqa: S104  of a namespace of its own
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


def serve_dns(names: dict[str, str]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))  # noqa: S104  the same
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        query, client = server.recvfrom(4096)
        labels, place = [], 12
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode())
            place += length + 1
        question = query[12 : place + 5]
        address = names.get(".".join(labels).lower())
        is_found = address is not None and question[-4:-2] == b"\0\1"
        head = query[:2] + struct.pack("!HHHHH", 0x8180 if address else 0x8183, 1, is_found, 0, 0)
        record = b""
        if address is not None and is_found:
            record = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address)
        server.sendto(head + question + record, client)


kind, *rest = sys.argv[1:]
if kind == "dns":
    serve_dns(dict(item.split("=") for item in rest))
else:
    serve_http(int(rest[0]), rest[1] if kind == "https" else None)
