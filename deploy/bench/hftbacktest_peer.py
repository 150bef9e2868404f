"""hftbacktest's ROI-vector back-test with a market maker that decides at every feed event.

It reads no JSON: the recording is converted beforehand, by the package's own converter, and lies in memory. What it has and a floor has not is
an exchange: queue positions, order latency, fills. bookTicker rows become best-bid/offer events, so that both sides see the same data.

Usage: hftbacktest_peer.py FILE.gz CONVERTED.npy ROUNDS MESSAGES    MESSAGES: lines in FILE. Prints one JSON object.
"""

import json
import os
import sys
import time

import numpy as np
from hftbacktest import GTX, LIMIT, BacktestAsset, ROIVectorMarketDepthBacktest
from hftbacktest.data.utils import binancefutures
from hftbacktest.types import BUY_EVENT, DEPTH_BBO_EVENT, SELL_EVENT
from importlib.metadata import version
from numba import njit


def convert(recording, converted):
    if not os.path.exists(converted) or os.path.getmtime(converted) < os.path.getmtime(recording):
        print("hftbacktest: converting the recording, once", file=sys.stderr, flush=True)
        data = binancefutures.convert(recording, opt="t", buffer_size=4_000_000)
        for custom, side in ((103, BUY_EVENT), (104, SELL_EVENT)):
            rows = (data["ev"] & 0xFF) == custom
            data["ev"][rows] = (data["ev"][rows] & ~np.uint64(0xFF)) | np.uint64(DEPTH_BBO_EVENT | side)
        with open(converted + ".part", "wb") as file:
            np.save(file, data)
        os.rename(converted + ".part", converted)
    return np.load(converted)


@njit
def market_maker(hbt):
    """Half the spread from the volumes at the touch, leaning to the heavier side: the floor's decision (floor.cpp)."""
    steps = quotes = 0
    bid_id = ask_id = 0
    bid_quote = ask_quote = 0
    next_id = 1
    while True:
        answer = hbt.wait_next_feed(False, 10_000_000_000)
        if answer != 0 and answer != 2:
            break
        steps += 1
        hbt.clear_inactive_orders(0)
        depth = hbt.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        if bid <= 0 or ask <= bid or ask > 10_000_000:
            continue
        below = above = 0.0
        for level in range(5):
            below += depth.bid_qty_at_tick(bid - level)
            above += depth.ask_qty_at_tick(ask + level)
        mid_twice = bid + ask
        width = mid_twice // 40_000 + 1
        lean = int((below - above) * width / (below + above)) if below + above > 0 else 0
        new_bid = min((mid_twice - 2 * width + lean) // 2, ask - 1)
        new_ask = max((mid_twice + 2 * width + lean + 1) // 2, bid + 1)
        tick = depth.tick_size
        if new_bid != bid_quote:
            orders = hbt.orders(0)
            if bid_id in orders and orders.get(bid_id).cancellable:
                hbt.cancel(0, bid_id, False)
            bid_quote, bid_id = new_bid, next_id
            next_id += 1
            quotes += 1
            hbt.submit_buy_order(0, bid_id, new_bid * tick, 0.01, GTX, LIMIT, False)
        if new_ask != ask_quote:
            orders = hbt.orders(0)
            if ask_id in orders and orders.get(ask_id).cancellable:
                hbt.cancel(0, ask_id, False)
            ask_quote, ask_id = new_ask, next_id
            next_id += 1
            quotes += 1
            hbt.submit_sell_order(0, ask_id, new_ask * tick, 0.01, GTX, LIMIT, False)
    return steps, quotes


def one_pass(data):
    asset = (
        BacktestAsset().data([data]).linear_asset(1.0).constant_order_latency(2_000_000, 2_000_000)
        .risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0.0002, 0.0005)
        .tick_size(0.1).lot_size(0.001).roi_lb(60_000.0).roi_ub(64_000.0).last_trades_capacity(0)
    )
    hbt = ROIVectorMarketDepthBacktest([asset])
    begun = time.perf_counter_ns()
    steps, quotes = market_maker(hbt)
    elapsed = time.perf_counter_ns() - begun
    hbt.close()
    return elapsed, steps, quotes


def main():
    recording, converted, rounds, messages = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    data = convert(recording, converted)
    print("hftbacktest: compiling (numba)", file=sys.stderr, flush=True)
    _, steps, quotes = one_pass(data)
    elapsed = sorted(one_pass(data)[0] for _ in range(rounds))
    print(json.dumps({
        "version": "hftbacktest " + version("hftbacktest"), "messages": messages, "rounds": rounds,
        "messages_per_second": round(messages * 1e9 / elapsed[len(elapsed) // 2]), "steps": steps, "quotes": quotes, "rows": len(data),
    }))


main()
