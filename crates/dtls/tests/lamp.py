"""A CoAP server over DTLS, by aiocoap and tinydtls: `lamp.py PORT IDENTITY KEY` serves `/lamp`."""

import asyncio
import sys

import aiocoap
from aiocoap.credentials import CredentialsMap
from aiocoap.resource import Resource, Site


class Lamp(Resource):
    async def render_get(self, request):
        return aiocoap.Message(payload=b"it is on")


async def main(port, identity, key):
    site = Site()
    site.add_resource(["lamp"], Lamp())
    credentials = CredentialsMap()
    dtls = {"psk": {"ascii": key}, "client-identity": {"ascii": identity}}
    credentials.load_from_dict({":lamps": {"dtls": dtls}})
    await aiocoap.Context.create_server_context(
        site,
        # DTLS is on the port after the one that is given here.
        bind=("127.0.0.1", int(port) - 1),
        transports=["tinydtls_server"],
        server_credentials=credentials,
    )
    print("serving", flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
