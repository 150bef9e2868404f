// The least that must be done with a Binance USD-M feed: frame bytes in memory -> JSON (simdjson, on demand) -> flat book -> a quote decision.
//
// The floor the edge is measured against. It does what cannot be left out of quoting, and nothing else: no features, no guards, no paper
// exchange, no records, no inputs that are hostile or of another venue. What it leaves out is the price of being right about the rest.
//
// Usage: floor FILE ROUNDS    FILE: lines '<receive unix ns> <frame>', plain text. Prints one JSON object.

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using namespace simdjson;

namespace {

int64_t now_ns() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

// "61800.20" with its quotes, in 10^-places; the feed writes at most that many decimals. The token may have blanks behind it.
inline int64_t decimal(std::string_view token, int places) {
    const char *at = token.data() + 1, *end = token.data() + token.size();
    int64_t value = 0;
    while (at < end && uint8_t(*at - '0') < 10) value = value * 10 + (*at++ - '0');
    int written = 0;
    if (at < end && *at == '.') {
        at++;
        while (at < end && uint8_t(*at - '0') < 10) {
            if (written < places) {
                value = value * 10 + (*at - '0');
                written++;
            }
            at++;
        }
    }
    for (; written < places; written++) value *= 10;
    return value;
}

// One side: quantity by tick in an array around the first price, the rest in a map; a bitmap finds the next occupied tick. 6,553 USD either
// way are enough for minutes; the touch is not looked for in the map.
template <bool isBid> struct Side {
    static constexpr int64_t span = 1 << 17;
    int64_t base = 0;
    std::vector<int64_t> quantity;
    std::vector<uint64_t> occupied;
    std::unordered_map<int64_t, int64_t> far;
    int64_t best = -1;  // Place in the array; -1: none.

    void clear(int64_t center) {
        base = center - span / 2;
        quantity.assign(span, 0);
        occupied.assign(span / 64, 0);
        far.clear();
        best = -1;
    }

    inline void set(int64_t tick, int64_t amount) {
        int64_t place = tick - base;
        if (uint64_t(place) >= uint64_t(span)) {
            if (amount == 0) far.erase(tick);
            else far[tick] = amount;
            return;
        }
        quantity[place] = amount;
        uint64_t bit = 1ull << (place & 63);
        if (amount != 0) {
            occupied[place >> 6] |= bit;
            if (best < 0 || (isBid ? place > best : place < best)) best = place;
        } else {
            occupied[place >> 6] &= ~bit;
            if (place == best) best = next(place);
        }
    }

    // The next occupied place behind `place`, away from the touch.
    inline int64_t next(int64_t place) const {
        int64_t word = place >> 6;
        if (isBid) {
            uint64_t bits = occupied[word] & ((1ull << (place & 63)) - 1);
            while (bits == 0) {
                if (--word < 0) return -1;
                bits = occupied[word];
            }
            return word * 64 + 63 - __builtin_clzll(bits);
        }
        uint64_t bits = (place & 63) == 63 ? 0 : occupied[word] & ~((2ull << (place & 63)) - 1);
        while (bits == 0) {
            if (++word >= span / 64) return -1;
            bits = occupied[word];
        }
        return word * 64 + __builtin_ctzll(bits);
    }

    inline int64_t volume(int levels) const {
        int64_t sum = 0;
        for (int64_t place = best; place >= 0 && levels > 0; place = next(place), levels--) sum += quantity[place];
        return sum;
    }
};

struct Quoter {
    static constexpr int64_t ticksPerUnit = 10;  // BTCUSDT: tick 0.1, lot 0.001.
    Side<true> bids;
    Side<false> asks;
    int64_t lastID = 0;
    bool isProven = false, hasSnapshot = false, isChained = false;
    int64_t topID = 0, topBid = 0, topAsk = 0, topBidQuantity = 0, topAskQuantity = 0;
    int64_t bidQuote = 0, askQuote = 0, quotes = 0, traded = 0;
    uint64_t hash = 0xcbf29ce484222325;
    ondemand::parser parser;
    std::vector<std::pair<int64_t, int64_t>> levels[2];
    struct Diff {
        int64_t first, last, previous;
        std::vector<std::pair<int64_t, int64_t>> levels[2];
    };
    std::vector<Diff> early;

    // Half the spread from the volumes at the touch, leaning to the heavier side: as little as may be called a decision.
    inline void quote() {
        int64_t bid, ask;
        if (topID > lastID) {
            bid = topBid;
            ask = topAsk;
        } else {
            if (bids.best < 0 || asks.best < 0) return;
            bid = bids.base + bids.best;
            ask = asks.base + asks.best;
        }
        int64_t below = bids.volume(5), above = asks.volume(5);
        int64_t midTwice = bid + ask;
        int64_t width = midTwice / 40'000 + 1;
        int64_t lean = below + above > 0 ? (below - above) * width / (below + above) : 0;
        int64_t newBid = std::min((midTwice - 2 * width + lean) / 2, ask - 1), newAsk = std::max((midTwice + 2 * width + lean + 1) / 2, bid + 1);
        if (newBid == bidQuote && newAsk == askQuote) return;
        bidQuote = newBid;
        askQuote = newAsk;
        quotes++;
        hash = ((hash ^ uint64_t(newBid)) * 0x100000001b3 ^ uint64_t(newAsk)) * 0x100000001b3;
    }

    template <typename Array> inline void readLevels(Array array, int side) {
        auto &out = levels[side];
        out.clear();
        for (auto level : array) {
            int64_t price = 0, amount = 0;
            int index = 0;
            for (auto cell : level.get_array()) {
                if (index++ == 0) price = decimal(token(cell), 1);
                else amount = decimal(token(cell), 3);
            }
            out.emplace_back(price, amount);
        }
    }

    template <typename Levels> inline void apply(Levels &levels) {
        for (auto &level : levels[0]) bids.set(level.first, level.second);
        for (auto &level : levels[1]) asks.set(level.first, level.second);
    }

    inline void diff(int64_t first, int64_t last, int64_t previous) {
        if (!hasSnapshot) {
            early.push_back({first, last, previous, {levels[0], levels[1]}});
            return;
        }
        if (!chain(first, last, previous)) return;
        apply(levels);
        quote();
    }

    inline bool chain(int64_t first, int64_t last, int64_t previous) {
        if (!isChained) {
            if (last < lastID || first > lastID) return false;
            isChained = true;
        } else if (previous != lastID) {
            isProven = false;
            return false;
        }
        lastID = last;
        isProven = true;
        return true;
    }

    template <typename Value> static inline std::string_view token(Value &&value) { return value.raw_json_token(); }

    // `name` ends with its quote, as keys do in the text.
    template <typename Field> static inline bool is(Field &field, const char *name) {
        return strncmp(field.key().value().raw(), name, strlen(name)) == 0;
    }

    void frame(const char *bytes, size_t size, size_t room) {
        ondemand::document document = parser.iterate(bytes, size, room);
        ondemand::object root = document.get_object();
        int64_t id = -1;
        for (auto field : root) {
            if (is(field, "data\"")) return data(field.value().get_object());
            if (is(field, "lastUpdateId\"")) id = field.value().get_int64();
            else if (is(field, "bids\"")) readLevels(field.value().get_array(), 0);
            else if (is(field, "asks\"")) readLevels(field.value().get_array(), 1);
        }
        if (id >= 0) snapshot(id);
    }

    void snapshot(int64_t id) {
        int64_t center = levels[0].empty() ? 0 : levels[0][0].first;
        bids.clear(center);
        asks.clear(center);
        apply(levels);
        lastID = id;
        hasSnapshot = true;
        isChained = false;
        for (auto &diff : early)
            if (chain(diff.first, diff.last, diff.previous)) apply(diff.levels);
        early.clear();
        quote();
    }

    // Keys are one or two letters, and in what is read here no two begin alike: the first letter tells.
    inline void data(ondemand::object object) {
        char kind = 0;
        int64_t first = 0, last = 0, previous = 0;
        int64_t bid = 0, ask = 0, bidQuantity = 0, askQuantity = 0, price = 0, amount = 0;
        bool isSeller = false;
        for (auto field : object) {
            switch (field.key().value().raw()[0]) {
            case 'e': kind = token(field.value())[1]; break;  // depthUpdate, bookTicker, trade
            case 'U': first = field.value().get_int64(); break;
            case 'u': last = field.value().get_int64(); break;
            case 'p':
                if (kind == 'd') previous = field.value().get_int64();
                else price = decimal(token(field.value()), 1);
                break;
            case 'q': amount = decimal(token(field.value()), 3); break;
            case 'm': isSeller = field.value().get_bool(); break;
            case 'b':
                if (kind == 'd') readLevels(field.value().get_array(), 0);
                else bid = decimal(token(field.value()), 1);
                break;
            case 'a':
                if (kind == 'd') readLevels(field.value().get_array(), 1);
                else ask = decimal(token(field.value()), 1);
                break;
            case 'B': bidQuantity = decimal(token(field.value()), 3); break;
            case 'A': askQuantity = decimal(token(field.value()), 3); break;
            default: break;
            }
        }
        switch (kind) {
        case 'd': diff(first, last, previous); break;
        case 'b':
            if (last <= topID) break;
            topID = last;
            topBid = bid;
            topAsk = ask;
            topBidQuantity = bidQuantity;
            topAskQuantity = askQuantity;
            if (isProven && last > lastID) quote();
            break;
        case 't': traded += (isSeller ? -amount : amount) * price; break;
        default: break;
        }
    }
};

enum Kind { depth, trade, bookTicker, snapshotKind, kinds };
const char *const kindNames[kinds] = {"depth", "trade", "book_ticker", "snapshot"};

struct Frame {
    size_t start, size;
    Kind kind;
};

int64_t quantile(std::vector<int64_t> &sorted, int perMille) {
    return sorted.empty() ? 0 : sorted[std::min(sorted.size() - 1, sorted.size() * perMille / 1000)];
}

template <typename Number> Number median(std::vector<Number> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: floor FILE ROUNDS\n");
        return 64;
    }
    int rounds = atoi(argv[2]);
    std::ifstream file(argv[1], std::ios::binary);
    if (!file || rounds < 1) {
        fprintf(stderr, "floor: cannot read '%s', or ROUNDS is below 1\n", argv[1]);
        return 1;
    }
    std::string text;
    std::vector<Frame> frames;
    for (std::string line; std::getline(file, line);) {
        size_t blank = line.find(' ');
        if (blank == std::string::npos) continue;
        Kind kind = snapshotKind;
        if (line.find("\"e\":\"depthUpdate\"") != std::string::npos) kind = depth;
        else if (line.find("\"e\":\"trade\"") != std::string::npos) kind = trade;
        else if (line.find("\"e\":\"bookTicker\"") != std::string::npos) kind = bookTicker;
        frames.push_back({text.size(), line.size() - blank - 1, kind});
        text.append(line, blank + 1);
    }
    size_t bytes = text.size();
    text.resize(bytes + SIMDJSON_PADDING);
    size_t room = text.size();

    int64_t clockCost = INT64_MAX;
    for (int i = 0; i < 10'000; i++) {
        int64_t first = now_ns();
        clockCost = std::min(clockCost, now_ns() - first);
    }

    // A pass of its own for throughput and for latencies; the first of each warms up. Every pass begins with an empty book.
    std::vector<double> rates, megabytes;
    std::vector<int64_t> p50[kinds], p90[kinds], p99[kinds], p999[kinds];
    size_t counts[kinds] = {};
    uint64_t hash = 0;
    int64_t quotes = 0, traded = 0;
    try {
        for (int round = 0; round <= rounds; round++) {
            Quoter quoter;
            int64_t start = now_ns();
            for (auto &frame : frames) quoter.frame(text.data() + frame.start, frame.size, room - frame.start);
            int64_t elapsed = now_ns() - start;
            if (!quoter.isProven) throw std::runtime_error("the book is not proven at the end");
            if (round > 0 && quoter.hash != hash) throw std::runtime_error("two rounds decided differently");
            hash = quoter.hash;
            quotes = quoter.quotes;
            traded = quoter.traded;
            if (round == 0) continue;
            rates.push_back(double(frames.size()) * 1e9 / double(elapsed));
            megabytes.push_back(double(bytes) * 1e3 / double(elapsed));
        }
        for (int round = 0; round <= rounds; round++) {
            Quoter quoter;
            std::vector<int64_t> durations[kinds];
            for (auto &kind : durations) kind.reserve(frames.size());
            for (auto &frame : frames) {
                int64_t start = now_ns();
                quoter.frame(text.data() + frame.start, frame.size, room - frame.start);
                durations[frame.kind].push_back(now_ns() - start - clockCost);
            }
            if (round == 0) continue;
            for (int kind = 0; kind < kinds; kind++) {
                std::sort(durations[kind].begin(), durations[kind].end());
                counts[kind] = durations[kind].size();
                p50[kind].push_back(quantile(durations[kind], 500));
                p90[kind].push_back(quantile(durations[kind], 900));
                p99[kind].push_back(quantile(durations[kind], 990));
                p999[kind].push_back(quantile(durations[kind], 999));
            }
        }
    } catch (const std::exception &error) {
        fprintf(stderr, "floor: %s\n", error.what());
        return 1;
    }
    printf("{\"version\":\"simdjson %s, %s\",\"messages\":%zu,\"rounds\":%d,\"messages_per_second\":%.0f,\"megabytes_per_second\":%.1f,",
           SIMDJSON_STRINGIFY(SIMDJSON_VERSION), get_active_implementation()->name().c_str(), frames.size(), rounds, median(rates), median(megabytes));
    printf("\"quotes\":%lld,\"traded\":%lld,\"kinds\":{", (long long)quotes, (long long)traded);
    for (int kind = 0; kind < kinds; kind++)
        printf("%s\"%s\":{\"count\":%zu,\"p50_ns\":%lld,\"p90_ns\":%lld,\"p99_ns\":%lld,\"p999_ns\":%lld}", kind ? "," : "", kindNames[kind],
               counts[kind], (long long)median(p50[kind]), (long long)median(p90[kind]), (long long)median(p99[kind]),
               (long long)median(p999[kind]));
    printf("}}\n");
}
