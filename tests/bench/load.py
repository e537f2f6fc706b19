"""An open-loop load: requests arrive by a Poisson process whether or not the server keeps up, and each stream's tokens
are timed as the client sees them.
"""

import asyncio
import dataclasses
import random
import time

import grpc

from trimtab.v1 import generation_pb2_grpc


@dataclasses.dataclass
class Stream:
    """One request as the client saw it; seconds."""
    long: bool
    time_to_first_token: float = float("inf")
    gaps: list = dataclasses.field(default_factory=list)
    error: str = ""

    def meets(self, ttft, gap):
        """Whether it was answered within both objectives; the gap is the mean over the answer."""
        return (not self.error and self.time_to_first_token <= ttft and
                (not self.gaps or sum(self.gaps) / len(self.gaps) <= gap))


@dataclasses.dataclass
class Arrival:
    at: float  # seconds from the start
    prompt_tokens: int
    output_tokens: int
    long: bool = False


def poisson(rng, rate, seconds):
    """Times of arrival in [0, seconds)."""
    at = rng.expovariate(rate) if rate > 0 else seconds
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


def schedule(seed, rate, seconds, long_rate=0.0, long_tokens=0):
    """Arrivals in time's order: prompts of 16 to 128 tokens with answers of 16 to 80, and long prompts. The ordinary
    ones do not depend on the long ones."""
    rng, long_rng = random.Random(seed), random.Random(seed + 1)
    arrivals = [Arrival(at, rng.randint(16, 128), rng.randint(16, 80)) for at in poisson(rng, rate, seconds)]
    arrivals += [Arrival(at, long_tokens, 8, True) for at in poisson(long_rng, long_rate, seconds)]
    return sorted(arrivals, key=lambda arrival: arrival.at)


async def _run(address, arrivals, requests):
    streams = [Stream(arrival.long) for arrival in arrivals]
    late = 0.0

    async def follow(stub, stream, request):
        begin = time.perf_counter()
        previous = None
        try:
            async for piece in stub.StreamGenerate(request, timeout=60):
                now = time.perf_counter()
                if not piece.token_ids:
                    continue  # the end of the stream
                if previous is None:
                    stream.time_to_first_token = now - begin
                else:
                    stream.gaps.append(now - previous)
                previous = now
        except grpc.aio.AioRpcError as error:
            stream.error = error.code().name

    async with grpc.aio.insecure_channel(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        start = time.perf_counter()
        tasks = []
        for arrival, stream, request in zip(arrivals, streams, requests):
            wait = start + arrival.at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            late = max(late, time.perf_counter() - start - arrival.at)
            tasks.append(asyncio.create_task(follow(stub, stream, request)))
        await asyncio.gather(*tasks)
    return streams, late


def run(server, arrivals):
    """(streams, how late the latest request was sent, seconds). Prompts are made before the clock starts."""
    requests = [server.request(server.prompt(arrival.prompt_tokens), arrival.output_tokens) for arrival in arrivals]
    return asyncio.run(_run(server.address, arrivals, requests))
