"""Reads a stream with a plain client, packed or not: python3 unpack.py URL STREAM (needs nats-py, lz4, zstandard)."""
import asyncio, json, sys
import lz4.frame, nats, zstandard

DECOMPRESS = {None: lambda data: data, "lz4": lz4.frame.decompress, "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}

def events(message):
    headers = message.headers or {}
    if "Jetring-Count" not in headers:
        return [json.loads(message.data)]
    lines = DECOMPRESS[headers.get("Content-Encoding")](message.data).splitlines()
    assert len(lines) == int(headers["Jetring-Count"])
    return [json.loads(line) for line in lines]

async def main(url, stream):
    client = await nats.connect(url)
    js = client.jetstream()
    subscription = await js.subscribe(">", stream=stream, ordered_consumer=True)
    for _ in range((await js.stream_info(stream)).state.messages):
        for event in events(await subscription.next_msg()):
            print(json.dumps(event))
    await client.close()

asyncio.run(main(*sys.argv[1:]))
