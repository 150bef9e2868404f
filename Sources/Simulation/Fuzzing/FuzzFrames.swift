import CalibModel

/// Sound frames of every venue's wire, which the fuzzer damages. Books of thousands of levels are left out but for one of each wire: they would be
/// most of the bytes and say little more.
package struct FuzzFrames: Sendable {
    /// Each market's frames in the order they came.
    package let markets: [(market: BinanceMarket, frames: [[UInt8]])]
    package let bybit: [[UInt8]]
    let binance: [[UInt8]]
    let all: [[UInt8]]

    private static let longest = 4_096

    package init(seed: UInt64) {
        let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)
        markets = BinanceMarket.allCases.map { market in
            var recording = BinanceRecording(
                seed: seed, venue: market, symbol: market.instruments[0].symbol, start: start, milliseconds: 5_000)
            var bytes: [UInt8] = []
            while !recording.isComplete { recording.step(into: &bytes) }
            return (market, bytes.split(separator: 0x0a).map { line in Array(line[(line.firstIndex(of: 0x20)! + 1)...]) })
        }
        var venue = BybitVenue(seed: seed, instruments: Array(SimInstrument.all.prefix(2)), start: start)
        var frames: [[UInt8]] = []
        for category in BybitCategory.allCases {
            let client = venue.connect(category)
            let request = #"{"op":"subscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT","orderbook.200.ETHUSDT"]}"#
            Array(request.utf8).withUnsafeBytes { venue.receive($0, from: client) { frames.append($1) } }
        }
        venue.advance(toElapsed: 3_000) { frames.append($1) }
        bybit = frames
        binance = markets.flatMap { $0.frames.filter { $0.count <= Self.longest } }
        all = binance + frames.filter { $0.count <= Self.longest }
    }
}
