"""The original's server: answers on a free port, which it tells on standard error, until it is killed."""
import re
import socket
import sys
from time import ctime


def answer(text):
    match = re.match("你(\\D+)吗？", text)
    if match:
        answer = "【机器人】小Zurich " + match.group(1) + "!"
    else:
        answer = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~"
    return answer.replace("我", "自己")


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print("listening on %s:%d" % server.getsockname(), file=sys.stderr, flush=True)
while True:
    request, peer = server.recvfrom(1024)
    response = "[%s]%s" % (bytes(ctime(), "utf-8"), answer(request.decode("utf-8")))
    server.sendto(response.encode("utf-8"), peer)
