"""The Python client as a peer of the end-to-end plan; see src/e2e.rs for what is said to it and what it says.

Its events are those of src/event.rs, made by json.dumps with the time of day from datetime.
"""

import asyncio
import json
import sys
import time
from datetime import datetime, timezone

import nats

IN_FLIGHT_MAX = 4096  # as the others have


def body(size):
    """An event of this size, and the key of its number."""
    if size == 128:
        return {"orderId": 0, "pool": 10, "out": "4267512345000000000"}
    hops, zeros = {414: (1, 10), 4096: (83, 2)}[size]
    return {
        "orderId": 0,
        "estimator": "two-hop",
        "sellToken": "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
        "buyToken": "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        "sellAmount": "1250000000000000000",
        "outAmount": "4267512345" + "0" * zeros,
        "gas": 186_000,
        "route": [{"pool": 10, "amountIn": "1250000000000000000"}] * hops,
        "elapsedMicros": 23.75,
        "verified": True,
        "error": None,
    }


async def publish(js, subject, event, numbers, every):
    """Publishes these events, and returns when all are acknowledged: how long each took, in seconds."""
    latencies = []
    start = time.perf_counter()
    futures = []
    for index, number in enumerate(numbers):
        if every:
            await asyncio.sleep(max(0.0, start + index * every - time.perf_counter()))
        event["orderId"] = 100_000_000 + number
        offered = time.perf_counter()
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "000Z")
        envelope = {"version": "v1", "timestamp": now, "body": event}
        future = await js.publish_async(subject, json.dumps(envelope, separators=(",", ":")).encode())
        future.add_done_callback(lambda _, offered=offered: latencies.append(time.perf_counter() - offered))
        futures.append(future)
    await asyncio.gather(*futures)  # raises if one has failed
    return latencies


async def main():
    url, subject, *numbers = sys.argv[1:]
    size, events, warm_up, every, threads = map(int, numbers)
    assert threads == 1, "there is one event loop"
    client = await nats.connect(url)
    js = client.jetstream(publish_async_max_pending=IN_FLIGHT_MAX)
    event = body(size)
    await publish(js, subject, event, range(warm_up), 0)
    print("ready", flush=True)
    assert sys.stdin.readline().strip() == "go", "nobody wants to know"
    latencies = await publish(js, subject, event, range(warm_up, warm_up + events), every / 1e6)
    print("done", flush=True)
    latencies.sort()

    def at(quantile):
        return latencies[min(int(quantile * len(latencies)), len(latencies) - 1)] * 1e6

    print(json.dumps({"acked": len(latencies), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999)}), flush=True)
    sys.stdin.readline()  # its end would be the end of its clock
    await client.close()


asyncio.run(main())
