"""cryptofeed's USD-M feed handler: raw JSON to book, trade and ticker callbacks, offline.

Frames go into the very method its websocket calls. Two things are given to it that it would fetch: the symbol's name and, in place of the REST
answer, the recording's own snapshot. It knows trades as `aggTrade` only, so trade frames are renamed before the clock runs.

Usage: cryptofeed_peer.py FILE ROUNDS    FILE: lines '<receive unix ns> <frame>', plain text. Prints one JSON object.
"""

import asyncio
import json
import logging
import sys
import time
from importlib.metadata import version

from cryptofeed.defines import BINANCE_FUTURES, L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import BinanceFutures
from cryptofeed.symbols import Symbols

KINDS = ("depth", "trade", "book_ticker")


def load(path):
    frames, snapshot = [], None
    with open(path, encoding="ascii") as file:
        for line in file:
            frame = line.rstrip("\n").partition(" ")[2]
            if '"e":"depthUpdate"' in frame:
                frames.append((0, frame))
            elif '"e":"trade"' in frame:
                frames.append((1, frame.replace('"e":"trade"', '"e":"aggTrade"').replace('"t":', '"a":', 1)))
            elif '"e":"bookTicker"' in frame:
                frames.append((2, frame))
            elif '"lastUpdateId"' in frame:
                snapshot = frame
    return frames, snapshot


class Answer:
    """In place of the REST connection."""

    def __init__(self, snapshot):
        self.snapshot = snapshot

    async def read(self, address):
        return self.snapshot


async def one_pass(frames, snapshot, durations):
    seen = [0, 0, 0]

    async def book(book, receipt):
        seen[0] += 1

    async def trade(trade, receipt):
        seen[1] += 1

    async def ticker(ticker, receipt):
        seen[2] += 1

    feed = BinanceFutures(
        symbols=["BTC-USDT-PERP"], channels=[L2_BOOK, TRADES, TICKER], callbacks={L2_BOOK: book, TRADES: trade, TICKER: ticker})
    feed.http_conn = Answer(snapshot)
    feed._reset()
    handle = feed.message_handler
    clock = time.perf_counter_ns
    begun = clock()
    if durations is None:
        for _, frame in frames:
            await handle(frame, None, 0.0)
    else:
        for kind, frame in frames:
            start = clock()
            await handle(frame, None, 0.0)
            durations[kind].append(clock() - start)
    elapsed = clock() - begun
    if seen[0] < 1000 or seen[1] == 0 or seen[2] == 0:
        sys.exit("cryptofeed: callbacks %s: the feed did not run" % seen)
    return elapsed, seen


def main():
    logging.disable(logging.INFO)
    frames, snapshot = load(sys.argv[1])
    rounds = int(sys.argv[2])
    Symbols.set(BINANCE_FUTURES, {"BTC-USDT-PERP": "BTCUSDT"}, {"instrument_type": {"BTC-USDT-PERP": "perpetual"}})
    rates, percentiles = [], [[] for _ in KINDS]
    for number in range(rounds + 1):
        elapsed, seen = asyncio.run(one_pass(frames, snapshot, None))
        if number:
            rates.append(len(frames) * 1e9 / elapsed)
    for _ in range(rounds):
        durations = [[] for _ in KINDS]
        asyncio.run(one_pass(frames, snapshot, durations))
        for kind, values in enumerate(durations):
            values.sort()
            percentiles[kind].append([values[min(len(values) - 1, len(values) * part // 1000)] for part in (500, 900, 990, 999)])
    kinds = {}
    for kind, name in enumerate(KINDS):
        middle = [sorted(column)[rounds // 2] for column in zip(*percentiles[kind])]
        count = sum(1 for of, _ in frames if of == kind)
        kinds[name] = dict(zip(("count", "p50_ns", "p90_ns", "p99_ns", "p999_ns"), [count] + middle))
    print(json.dumps({
        "version": "cryptofeed " + version("cryptofeed"), "messages": len(frames), "rounds": rounds,
        "messages_per_second": round(sorted(rates)[rounds // 2]), "callbacks": dict(zip(KINDS, seen)), "kinds": kinds,
    }))


main()
