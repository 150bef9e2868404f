import CalibModel
import Wire

/// What an edge says to Binance: streams, subscriptions and REST requests of spot, USD-M and COIN-M futures.
package enum BinanceWire {
    package enum Market: Sendable, Equatable {
        case spot, usdm, coinm

        /// Where the venue answers REST requests for public data.
        package var publicREST: String {
            switch self {
            case .spot: "https://api.binance.com"
            case .usdm: "https://fapi.binance.com"
            case .coinm: "https://dapi.binance.com"
            }
        }

        private var root: String {
            switch self {
            case .spot: "/api/v3"
            case .usdm: "/fapi/v1"
            case .coinm: "/dapi/v1"
            }
        }

        package var depthPath: String { root + "/depth" }
        package var instrumentsPath: String { root + "/exchangeInfo" }

        /// Request weight an address may use in a minute.
        package var weightPerMinute: Int64 { self == .spot ? 6_000 : 2_400 }
        /// What a list of all instruments costs.
        package var instrumentsWeight: Int64 { self == .spot ? 20 : 1 }

        /// Weight of an order book with that many levels a side (`limit`), as documented.
        package func depthWeight(limit: Int) -> Int64 {
            switch self {
            case .spot: limit <= 100 ? 5 : limit <= 500 ? 25 : limit <= 1_000 ? 50 : 250
            case .usdm, .coinm: limit <= 50 ? 2 : limit <= 100 ? 5 : limit <= 500 ? 10 : 20
            }
        }

        /// Levels of the order books asked for: the most with which the first books of all symbols come within five minutes. Levels outside a
        /// snapshot stay unknown until they change, so more is better.
        package func snapshotLevels(symbols: Int) -> Int {
            let share = RequestWeight(perMinute: weightPerMinute).share
            return [1_000, 500, 100].first { Int64(symbols) * depthWeight(limit: $0) <= 5 * share } ?? 100
        }

        /// The venue closes a connection that says more than 5 (spot) or 10 (futures) messages a second, pings included. With the 2 pings a
        /// second of SPEC 3.2 this leaves room.
        package var requestIntervalNanoseconds: Int64 { self == .spot ? 500_000_000 : 200_000_000 }

        /// Books each 100 ms, best prices as they change, and trades. Futures document no single trades; theirs are aggregates, without those of
        /// the insurance fund.
        package func streams(of symbol: String) -> [String] {
            let name = symbol.lowercased()
            return ["\(name)@depth@100ms", "\(name)@bookTicker", name + (self == .spot ? "@trade" : "@aggTrade")]
        }
    }

    /// What a COIN-M contract is worth in US dollars, where nothing says so: 100 of Bitcoin, 10 of every other coin.
    package static func contractMultiplier(of symbol: String) -> Int64 { symbol.hasPrefix("BTCUSD") ? 100 : 10 }

    /// Streams of one connection.
    package static let streamsPerConnectionMax = 1_024
    /// Streams named in one request, of 30 bytes each: the venue refuses long messages.
    package static let streamsPerRequestMax = 60
    /// Between pings of one connection (SPEC 3.2).
    package static let pingIntervalNanoseconds: Int64 = 500_000_000
    /// A connection lives 24 hours. It is renewed before, within these, so that an edge chooses when, and not all edges at one time.
    package static let lifetimeNanoseconds: ClosedRange<Int64> = 84_600_000_000_000...85_800_000_000_000

    /// Which symbols share a connection.
    package static func shards(symbols: Int) -> [Range<Int>] {
        let size = streamsPerConnectionMax / 3
        return stride(from: 0, to: symbols, by: size).map { $0..<min(symbols, $0 + size) }
    }

    /// The requests that subscribe to everything about these symbols, in order.
    package static func subscriptions(symbols: ArraySlice<String>, _ market: Market) -> [[UInt8]] {
        let streams = symbols.flatMap { market.streams(of: $0) }
        return stride(from: 0, to: streams.count, by: streamsPerRequestMax).enumerated().map { number, start in
            var out = JSONWriter()
            out.beginObject()
            out.key("method")
            out.string("SUBSCRIBE")
            out.key("params")
            out.beginArray()
            for stream in streams[start..<min(streams.count, start + streamsPerRequestMax)] { out.string(stream) }
            out.endArray()
            out.field("id", integer: Int64(number + 1))
            out.endObject()
            return out.bytes
        }
    }

    /// How long the venue wants to hear nothing after an answer of that status: 429 asks to slow down, 418 has banned the address. 0 for others.
    /// `retryAfterSeconds` is the answer's header; without it, a minute, which is when the venue's count begins anew.
    package static func pauseNanoseconds(status: Int, retryAfterSeconds: Int64?) -> Int64 {
        guard status == 418 || status == 429 else { return 0 }
        return min(max(1, retryAfterSeconds ?? 60), Limits.venuePauseNanosecondsMax / 1_000_000_000) * 1_000_000_000
    }
}
