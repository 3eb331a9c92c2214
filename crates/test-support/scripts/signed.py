"""Signed messages of text, written from the description of the format alone.

    signed.py serve KEYS          answers each authentic request on a port of its own, until it is killed
    signed.py ask PORT KEY TEXT   asks once, and prints the text of the response
    signed.py vector              prints the request and the response of the documentation

A key is NUMBER:SECRET:SERVICE, the secret in hexadecimal digits.
"""

import hashlib
import hmac
import os
import socket
import sys
import time

WINDOW = 60 * 10**6


def mac(secret, service, covered):
    key = hmac.new(secret, b"rejoinder signed 1 " + service, hashlib.sha256).digest()
    return hmac.new(key, covered, hashlib.sha256).digest()[:16]


def request(key, micros, nonce, text):
    number, secret, service = key
    covered = b"q" + number.to_bytes(4, "big") + micros.to_bytes(8, "big") + nonce + text
    return covered + mac(secret, service, covered)


def response(key, nonce, asked, text):
    number, secret, service = key
    header = b"r" + number.to_bytes(4, "big") + nonce
    covered = header + len(asked).to_bytes(4, "big") + asked + text
    return header + text + mac(secret, service, covered)


def parse_key(text):
    number, secret, service = text.split(":")
    return int(number), bytes.fromhex(secret), service.encode()


def now():
    return time.time_ns() // 1000


class Server:
    def __init__(self, keys):
        self.keys = {key[0]: key for key in keys}
        self.started = now()
        self.accepted = {}

    def answer(self, datagram):
        if len(datagram) < 45 or datagram[:1] != b"q":
            return None
        key = self.keys.get(int.from_bytes(datagram[1:5], "big"))
        if key is None or not hmac.compare_digest(datagram[-16:], mac(*key[1:], datagram[:-16])):
            return None
        micros, nonce = int.from_bytes(datagram[5:13], "big"), datagram[13:29]
        if abs(now() - micros) > WINDOW or micros < self.started:
            return None
        if micros <= self.accepted.get(nonce, 0):
            return None
        self.accepted[nonce] = micros
        asked = datagram[29:-16]
        return response(key, nonce, asked, b"python: " + asked.upper())


def serve(keys):
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.bind(("127.0.0.1", 0))
    server = Server(keys)
    print("listening on %s:%d" % here.getsockname(), file=sys.stderr, flush=True)
    while True:
        datagram, peer = here.recvfrom(65535)
        answer = server.answer(datagram)
        if answer is not None:
            here.sendto(answer, peer)


def ask(port, key, text):
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.settimeout(30)
    here.connect(("127.0.0.1", port))
    nonce = os.urandom(16)
    here.send(request(key, now(), nonce, text))
    answer = here.recv(65535)
    expected = response(key, nonce, text, answer[21:-16])
    assert hmac.compare_digest(answer, expected), answer.hex()
    print(answer[21:-16].decode())


def main():
    match sys.argv[1:]:
        case ["serve", *keys]:
            serve([parse_key(key) for key in keys])
        case ["ask", port, key, text]:
            ask(int(port), parse_key(key), text.encode())
        case ["vector"]:
            key = 7, bytes(range(32)), b""
            nonce = bytes(range(0xA0, 0xA8)) + bytes(range(1, 9))
            print(request(key, 1562519878 * 10**6, nonce, b"ping").hex())
            print(response(key, nonce, b"ping", b"pong").hex())
        case _:
            sys.exit(__doc__)


main()
