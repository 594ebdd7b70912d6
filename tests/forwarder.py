"""A network between a client and a server, to be taken away.

python -m tests.forwarder PORT TO_PORT
"""

import asyncio
import contextlib
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
    writer.close()


async def serve(port: int, to: int) -> None:
    async def connected(reader, writer) -> None:
        answers, asked = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(carry(reader, asked), carry(answers, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
