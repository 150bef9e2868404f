import CalibModel
import Configuration
import EdgeCore
import Wire

/// What a replay prints, and a live run when it ends: totals first, then one object per symbol.
struct RunSummary {
    var span: (first: WallTime, last: WallTime)?
    var wallNanoseconds: Int64
    var oversizedLines: Int
    var feeds: FeedStatistics?
    var directory: String?

    /// One JSON object on one line; the README's table explains each key.
    func json(_ node: borrowing QuoteNode) -> String {
        var out = JSONWriter()
        let total = totals(node)
        out.beginObject()
        out.field("messages", integer: node.messages)
        write(total, &out)
        writeTop(node.symbolCount == 1 ? top(node, 0) : nil, &out)
        out.key("quotes_hash")
        out.hex(node.shared.quotesHash)
        out.key("first_ts")
        if let span { out.integer(span.first.milliseconds) } else { out.null() }
        out.key("last_ts")
        if let span { out.integer(span.last.milliseconds) } else { out.null() }
        out.field("venue_clock_offset_ms", fixed: node.venueClockOffsetNanoseconds, places: Places.milliseconds)
        out.field("wall_ms", fixed: wallNanoseconds, places: 6)
        out.field("other_messages", integer: node.otherMessages)
        out.field("refused_requests", integer: node.refusedRequests)
        out.field("oversized_lines", integer: oversizedLines)
        out.key("rejected")
        out.beginObject()
        for reason in FrameRejection.allCases where node.rejected(reason) > 0 {
            out.key(reason.name)
            out.integer(node.rejected(reason))
        }
        out.endObject()
        out.key("gaps")
        out.beginArray()
        for gap in node.gaps {
            out.beginObject()
            out.field("symbol", string: node.withSymbol(Int(gap.symbol)) { $0.instrument.symbol })
            out.field("ts", integer: gap.wall.milliseconds)
            out.field("expected", integer: gap.expected)
            out.field("received", integer: gap.received)
            out.endObject()
        }
        out.endArray()
        out.key("symbols")
        out.beginArray()
        for index in 0..<node.symbolCount {
            let (instrument, counts) = node.withSymbol(index) { ($0.instrument, totals($0)) }
            out.beginObject()
            out.field("symbol", string: instrument.symbol)
            out.field("tick_size", fixed: instrument.tickNano, places: Places.price)
            out.field("lot_size", fixed: instrument.lotE8, places: Places.quantity)
            out.field("inferred", boolean: instrument.isInferred)
            out.field("proven", boolean: node.withSymbol(index) { $0.isProven })
            write(counts, &out)
            writeTop(top(node, index), &out)
            out.field("position", fixed: node.withSymbol(index) { $0.positionLots } * instrument.lotE8, places: Places.quantity)
            out.endObject()
        }
        out.endArray()
        out.key("feeds")
        if let feeds, let directory {
            out.beginObject()
            out.field("directory", string: directory + "/feeds")
            for feed in Feed.allCases {
                out.key(data: feed.rawValue)
                out.integer(feeds[feed].rows)
            }
            out.endObject()
        } else {
            out.null()
        }
        if let explanation = node.shared.explanation {
            out.key("explain_tick")
            let instrument = node.withSymbol(Int(explanation.symbol)) { $0.instrument }
            ExplanationText(explanation: explanation, instrument: instrument, parameters: node.shared.parameters).write(to: &out)
        }
        if let story = OrderStoryText(node) {
            out.key("explain_order")
            story.write(to: &out)
        }
        out.endObject()
        return String(decoding: out.bytes, as: UTF8.self)
    }

    /// Two columns for a person.
    func table(_ node: borrowing QuoteNode) -> String {
        let total = totals(node)
        var rows: [(String, String)] = [("messages", "\(node.messages)")]
        rows += [
            ("depth / trades / bookTickers", "\(total.counts.depthMessages) / \(total.counts.trades) / \(total.counts.bookTickers)"),
            ("sequence gaps", "\(total.counts.sequenceGaps)"), ("unsynced depth messages", "\(total.counts.unsyncedMessages)"),
            ("crossed books", "\(total.counts.crossed)"),
            ("bookTicker matches", "\(total.matches) of \(total.matches + total.mismatches)"), ("ticks", "\(total.counts.ticks)"),
            ("quotes", "\(total.counts.quotes)"), ("fills", "\(total.counts.fills)"),
        ]
        for index in 0..<node.symbolCount {
            let (instrument, position) = node.withSymbol(index) { ($0.instrument, $0.positionLots) }
            if let top = top(node, index) {
                rows.append(("\(instrument.symbol) best", "\(Self.text(top.bid, Places.price)) / \(Self.text(top.ask, Places.price))"))
            }
            rows.append(("\(instrument.symbol) position", Self.text(position * instrument.lotE8, Places.quantity)))
        }
        let rejected = FrameRejection.allCases.reduce(Int64(0)) { $0 + node.rejected($1) }
        if rejected > 0 { rows.append(("rejected frames", "\(rejected)")) }
        var hash = JSONWriter()
        hash.hex(node.shared.quotesHash)
        rows.append(("quotes hash", String(decoding: hash.bytes.dropFirst().dropLast(), as: UTF8.self)))
        rows.append(("wall time", "\(Self.text(wallNanoseconds / 1_000_000, 0)) ms"))
        if let feeds, let directory { rows.append(("feeds", "\(directory)/feeds, \(feeds.rows) rows")) }
        let width = rows.map(\.0.count).max() ?? 0
        let story = OrderStoryText(node).map { "\n\n" + $0.lines.joined(separator: "\n") } ?? ""
        return summary(rows, width) + story
    }

    private func summary(_ rows: [(String, String)], _ width: Int) -> String {
        rows.map { $0.0 + String(repeating: " ", count: width - $0.0.count + 2) + $0.1 }.joined(separator: "\n")
    }

    // MARK: Leaves

    private struct Totals {
        var counts = SymbolCounts()
        var matches: Int64 = 0
        var mismatches: Int64 = 0
    }

    private func totals(_ symbol: borrowing SymbolState) -> Totals {
        Totals(counts: symbol.counts, matches: symbol.audit.matches, mismatches: symbol.audit.mismatches)
    }

    private func totals(_ node: borrowing QuoteNode) -> Totals {
        var sum = Totals()
        for index in 0..<node.symbolCount {
            let one = node.withSymbol(index) { totals($0) }
            sum.counts.add(one.counts)
            sum.matches += one.matches
            sum.mismatches += one.mismatches
        }
        return sum
    }

    private func top(_ node: borrowing QuoteNode, _ index: Int) -> (bid: Int64, ask: Int64)? {
        node.withSymbol(index) { symbol in
            symbol.book.top.map { ($0.bidPrice * symbol.instrument.tickNano, $0.askPrice * symbol.instrument.tickNano) }
        }
    }

    private func write(_ total: Totals, _ out: inout JSONWriter) {
        out.field("depth_messages", integer: total.counts.depthMessages)
        out.field("snapshots", integer: total.counts.snapshots)
        out.field("trades", integer: total.counts.trades)
        out.field("book_tickers", integer: total.counts.bookTickers)
        out.field("sequence_gaps", integer: total.counts.sequenceGaps)
        out.field("unsynced_messages", integer: total.counts.unsyncedMessages)
        out.field("resubscriptions", integer: total.counts.resubscriptions)
        out.field("crossed", integer: total.counts.crossed)
        out.field("book_ticker_matches", integer: total.matches)
        out.field("book_ticker_mismatches", integer: total.mismatches)
        out.field("ticks", integer: total.counts.ticks)
        out.field("quotes", integer: total.counts.quotes)
        out.field("fills", integer: total.counts.fills)
        out.field("post_only_rejections", integer: total.counts.postOnlyRejections)
        out.field("self_crosses_held", integer: total.counts.selfCrossesHeld)
    }

    private func writeTop(_ top: (bid: Int64, ask: Int64)?, _ out: inout JSONWriter) {
        out.field("best_bid", fixed: top?.bid, places: Places.price)
        out.field("best_ask", fixed: top?.ask, places: Places.price)
    }

    private static func text(_ value: Int64, _ places: Int) -> String {
        guard places > 0 else { return "\(value)" }
        return ConfigurationReader.decimal(value, places)
    }
}
