"""Signs one order of version 2, as docs/protocol.md says, with another implementation than the product's.

    order.py KEY SERVER SEQUENCE NOT_AFTER PAYLOAD

KEY is the backend's signing key (PKCS#8, DER), or `seed:N` for a key that no backend has. NOT_AFTER is
a time in seconds since 1970, or `+N` for N seconds from now. The order goes to standard output.
"""

import base64
import json
import struct
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def read_key(name):
    if name.startswith("seed:"):
        return Ed25519PrivateKey.from_private_bytes(bytes([int(name[5:])]) * 32)
    with open(name, "rb") as file:
        document = file.read()
    # The private half, as OCTET STRING in OCTET STRING (RFC 8410); some libraries refuse the public one behind it.
    head = b"\x04\x22\x04\x20"
    begin = document.index(head) + len(head)
    return Ed25519PrivateKey.from_private_bytes(document[begin : begin + 32])


def text(value):
    return struct.pack(">I", len(value.encode())) + value.encode()


def main():
    key, server, sequence, not_after, payload = sys.argv[1:]
    sequence = int(sequence)
    not_after = int(time.time()) + int(not_after) if not_after.startswith("+") else int(not_after)
    signed = text("bastio-order-v1") + text(server) + struct.pack(">Qq", sequence, not_after) + text(payload)
    order = {
        "type": "order",
        "server": server,
        "sequence": sequence,
        "not_after": not_after,
        "payload": payload,
        "signature": base64.b64encode(read_key(key).sign(signed)).decode(),
    }
    print(json.dumps(order, ensure_ascii=False, separators=(",", ":")), end="")


main()
