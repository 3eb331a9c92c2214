"""The original's client: client.py HOST PORT.

Every line of standard input is a request in hexadecimal, and is answered by a line with the
response in hexadecimal and the ctime texts, separated by `|`, of the seconds in which it was made.
"""
import socket
import sys
import time

server = (sys.argv[1], int(sys.argv[2]))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(50)
for line in sys.stdin:
    before = int(time.time())
    client.sendto(bytes.fromhex(line), server)
    response, _ = client.recvfrom(1024)
    after = int(time.time())
    print(response.hex(), "|".join(time.ctime(t) for t in range(before, after + 1)), sep="\t")
