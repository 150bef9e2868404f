"""A market of many symbols as a recording of Bybit's stream, and what an edge made of it.

Usage: many_symbols.py write RECORDING INSTRUMENTS SYMBOLS RATE SECONDS SEED
       many_symbols.py figures METRICS_EARLY METRICS_LATE SYMBOLS RATE SECONDS

`write`: each symbol gets 50 levels a side, RATE book deltas a second of six levels each, and a trade with every tenth. The best price walks by a
tick now and then. Symbols follow each other evenly through the time between two deltas. INSTRUMENTS is the file for `instruments_file`.
`figures`: from two scrapes of /metrics, behind the first tenth and at the end. Exit status: 0 every promise kept, 2 one broken.
"""

import random
import re
import sys

LEVELS = 50
# One of so many streams is behind each symbol; what one symbol does has no part in how another is quoted.
STREAMS = 20


class Book:
    """One stream: bids below `best`, asks from `best + 1` up, quantities in thousandths."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.best = 600_000
        self.sides = [{self.best - i: self.quantity() for i in range(LEVELS)}, {self.best + 1 + i: self.quantity() for i in range(LEVELS)}]
        self.update = 1

    def quantity(self):
        return self.random.randint(1, 5000)

    @staticmethod
    def text(levels):
        return ",".join(f'["{price // 10}.{price % 10}0","{quantity // 1000}.{quantity % 1000:03}"]' for price, quantity in levels)

    def snapshot(self):
        return self.text(sorted(self.sides[0].items(), reverse=True)), self.text(sorted(self.sides[1].items()))

    def delta(self):
        """The levels that changed, bids and asks; it moves the touch once in twenty times."""
        self.update += 1
        changes = [{}, {}]
        if self.random.random() < 0.05:
            up = self.random.random() < 0.5
            gone, come = (1, 0) if up else (0, 1)
            price = self.best + 1 if up else self.best
            self.best += 1 if up else -1
            changes[gone][price] = 0
            changes[come][price] = self.quantity()
            changes[gone][price + LEVELS if up else price - LEVELS] = self.quantity()
            changes[come][price - LEVELS if up else price + LEVELS] = 0
        for _ in range(4):
            side = self.random.randrange(2)
            depth = min(int(self.random.expovariate(0.2)), LEVELS - 1)
            changes[side][self.best - depth if side == 0 else self.best + 1 + depth] = self.quantity()
        return self.text(changes[0].items()), self.text(changes[1].items())


def write(recording, instruments, symbols, rate, seconds, seed):
    names = [f"S{number:03}USDT" for number in range(symbols)]
    with open(instruments, "w", encoding="ascii") as out:
        out.write("bybit:\n")
        for name in names:
            out.write(f"  {name}: {{tick: 0.1, lot: 0.001}}\n")
    books = [Book(seed * STREAMS + number) for number in range(min(STREAMS, symbols))]
    start = 1_735_689_600_000_000
    with open(recording, "w", encoding="ascii", buffering=1 << 20) as out:

        def line(microseconds, text):
            quoted = text.replace('"', '\\"')
            out.write(f'{{"t":"recv","conn":"1","ts":{microseconds // 1_000_000}.{microseconds % 1_000_000:06},"data":"{quoted}"}}\n')

        out.write(f'{{"t":"connect","conn":"1","ts":{start // 1_000_000}.0,"addr":"wss://127.0.0.1/v5/public/linear"}}\n')
        for beat in range(rate * seconds):
            deltas = [book.snapshot() if beat == 0 else book.delta() for book in books]
            kind = "snapshot" if beat == 0 else "delta"
            for number, name in enumerate(names):
                now = start + (beat * symbols + number) * 1_000_000 // (rate * symbols)
                book = books[number % len(books)]
                bids, asks = deltas[number % len(books)]
                milliseconds = now // 1000
                line(
                    now,
                    f'{{"topic":"orderbook.50.{name}","type":"{kind}","ts":{milliseconds},"data":{{"s":"{name}","b":[{bids}],"a":[{asks}],'
                    f'"u":{book.update},"seq":{book.update}}},"cts":{milliseconds}}}',
                )
                if beat % 10 == 9:
                    line(
                        now,
                        f'{{"topic":"publicTrade.{name}","type":"snapshot","ts":{milliseconds},"data":[{{"T":{milliseconds},"s":"{name}","S":"Buy",'
                        f'"v":"0.010","p":"{(book.best + 1) // 10}.{(book.best + 1) % 10}0","L":"ZeroPlusTick","i":"{name}-{beat}","BT":false,'
                        f'"seq":{book.update}}}]}}',
                    )


SAMPLE = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? (\S+)$")


def scrape(path):
    found = {}
    with open(path, encoding="utf-8") as lines:
        for text in lines:
            match = SAMPLE.match(text.strip())
            if match:
                found.setdefault(match[1], []).append((dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])))
    return found


def total(metrics, name):
    if name not in metrics:
        sys.exit(f"many_symbols.py: the edge tells nothing of {name}")
    return sum(value for _, value in metrics[name])


def quantile_bound(metrics, name, share):
    """The upper edge of the bucket in which the quantile lies, over all series."""
    buckets = {}
    for labels, value in metrics[name + "_bucket"]:
        edge = float(labels["le"].replace("+Inf", "inf"))
        buckets[edge] = buckets.get(edge, 0) + value
    needed = share * max(buckets.values())
    return min(edge for edge, count in buckets.items() if count >= needed)


def figures(early, late, symbols, rate, seconds):
    early, late = scrape(early), scrape(late)
    ticks = total(late, "mm_ticks_total")
    dropped = total(late, "mm_feed_dropped_total")
    gaps = total(late, "mm_md_ws_gaps_total")
    errors = total(late, "mm_feed_write_errors_total")
    rows = total(late, "mm_feed_records_total")
    bound = quantile_bound(late, "mm_tick_duration_seconds", 0.99)
    resident = [total(metrics, "process_resident_memory_bytes") / 1e6 for metrics in (early, late)]
    promises = [
        ("book updates that became a tick", f"{ticks / (symbols * rate * seconds):.3f}", ">= 0.95", ticks >= 0.95 * symbols * rate * seconds),
        ("feed rows", f"{rows:.0f}", "> 0", rows > 0),
        ("feed rows dropped", f"{dropped:.0f}", "0", dropped == 0),
        ("feed write errors", f"{errors:.0f}", "0", errors == 0),
        ("gaps", f"{gaps:.0f}", "0", gaps == 0),
        ("tick p99", f"<= {bound * 1e6:.0f} us", "<= 50 us", bound <= 50e-6),
        ("resident memory, first tenth -> end", f"{resident[0]:.0f} -> {resident[1]:.0f} MB", "flat", resident[1] <= 1.1 * resident[0]),
    ]
    for name, value, promise, kept in promises:
        print(f"{'kept  ' if kept else 'BROKEN'} {name:38} {value:>20}   {promise}")
    sys.exit(0 if all(kept for *_, kept in promises) else 2)


match sys.argv[1:]:
    case ["write", recording, instruments, symbols, rate, seconds, seed]:
        write(recording, instruments, int(symbols), int(rate), int(seconds), int(seed))
    case ["figures", early, late, symbols, rate, seconds]:
        figures(early, late, int(symbols), int(rate), int(seconds))
    case _:
        sys.exit(__doc__)
