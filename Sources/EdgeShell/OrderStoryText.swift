import CalibModel
import Configuration
import EdgeCore
import Wire

/// The life of one order, for a program and for a person: the same events with the same fields.
struct OrderStoryText {
    private let story: OrderStory
    private let order: PaperOrder
    private let instrument: Instrument
    private let queueModel: QueueModel

    /// Nil when none was asked for, or it was never sent.
    init?(_ node: borrowing QuoteNode) {
        guard let story = node.shared.story, let order = story.order, let symbol = story.symbol else { return nil }
        self.story = story
        self.order = order
        instrument = node.withSymbol(Int(symbol)) { $0.instrument }
        queueModel = node.shared.parameters.paperRules.queueModel
    }

    private enum Value {
        case price(Int64)
        case lots(Int64)
        case bps(BasisPoints)
        case integer(Int64)
        case flag(Bool)
        case text(String)
        case instant(WallTime)
    }

    private typealias Fields = [(key: String, value: Value)]

    func write(to out: inout JSONWriter) {
        out.beginObject()
        write(head, to: &out)
        out.key("events")
        out.beginArray()
        for entry in story.entries {
            out.beginObject()
            let (name, fields) = describe(entry.event)
            out.field("ts", integer: entry.wall.milliseconds)
            out.field("ts_iso", string: TimeText.milliseconds(entry.wall.milliseconds))
            out.field("event", string: name)
            write(fields, to: &out)
            out.endObject()
        }
        out.endArray()
        out.endObject()
    }

    /// One line for the order, one for each event.
    var lines: [String] {
        ["order " + line(head)]
            + story.entries.map { entry in
                let (name, fields) = describe(entry.event)
                let padding = String(repeating: " ", count: max(1, 13 - name.utf8.count))
                return "\(TimeText.milliseconds(entry.wall.milliseconds))  \(name)\(padding)\(line(fields))"
            } + (story.isCut ? ["further events are left out"] : [])
    }

    private var head: Fields {
        [
            ("order_id", .text(Self.id(order.id))), ("symbol", .text(instrument.symbol)), ("side", .text("\(order.side.text)")),
            ("price", .price(order.price)), ("qty", .lots(order.lots)),
            ("half_spread_bps", .bps(BasisPoints(micro: order.spread.micro / 2))),
            ("skew_bps", .bps(order.skew)), ("nudge_bps", .bps(order.nudge)), ("queue_model", .text(queueModel.rawValue)),
            ("truncated", .flag(story.isCut)),
        ]
    }

    private func describe(_ event: OrderStory.Event) -> (name: String, fields: Fields) {
        switch event {
        case .sent(let replacing, let dueAt):
            let before: Fields = replacing.map { [("replaces", .text(Self.id($0)))] } ?? []
            return ("sent", before + [("takes_effect", .instant(dueAt))])
        case .accepted(let ahead, let lots): return ("accepted", [("queue_ahead", .lots(ahead)), ("qty", .lots(lots))])
        case .refused: return ("refused", [("why", .text("post_only"))])
        case .exhausted: return ("refused", [("why", .text("filled_meanwhile"))])
        case .trade(let price, let lots, let aggressor, let before, let after, let filled):
            return (
                "trade",
                [
                    ("price", .price(price)), ("qty", .lots(lots)), ("aggressor", .text("\(aggressor.text)")),
                    ("queue_before", .lots(before)), ("queue_after", .lots(after)), ("filled", .lots(filled)),
                ]
            )
        case .book(let displayedBefore, let displayed, let traded, let before, let after):
            return (
                "book",
                [
                    ("displayed_before", .lots(displayedBefore)), ("displayed", .lots(displayed)), ("traded_since", .lots(traded)),
                    ("queue_before", .lots(before)), ("queue_after", .lots(after)),
                ]
            )
        case .fill(let fill, let id, let fee):
            let cause: (name: String, price: Int64, lots: Int64) =
                switch fill.cause {
                case .trade(let price, let lots): ("trade", price, lots)
                case .crossed(let price, let lots): ("book_crossed", price, lots)
                case .taken(let price, let lots): ("taken_on_arrival", price, lots)
                }
            return (
                "fill",
                [
                    ("fill_id", .integer(id)), ("price", .price(fill.price)), ("qty", .lots(fill.lots)),
                    ("maker", .flag(!fill.isTaker)), ("fee_bps", .bps(fee)), ("queue_before", .lots(fill.queueAhead)),
                    ("remaining", .lots(fill.order.remaining)), ("cause", .text(cause.name)), ("cause_price", .price(cause.price)),
                    ("cause_qty", .lots(cause.lots)),
                ]
            )
        case .replaceSent(let by, let dueAt): return ("replace_sent", [("by", .text(Self.id(by))), ("takes_effect", .instant(dueAt))])
        case .cancelSent(let dueAt): return ("cancel_sent", [("takes_effect", .instant(dueAt))])
        case .ended(let outcome, let filled): return ("ended", [("outcome", .text("\(outcome.text)")), ("filled", .lots(filled))])
        }
    }

    // MARK: Leaves

    private func write(_ fields: Fields, to out: inout JSONWriter) {
        for (key, value) in fields {
            out.key(data: key)
            switch value {
            case .price(let ticks): out.fixed(ticks * instrument.tickNano, places: Places.price)
            case .lots(let lots): out.fixed(lots * instrument.lotE8, places: Places.quantity)
            case .bps(let bps): out.fixed(bps.micro, places: Places.bps)
            case .integer(let integer): out.integer(integer)
            case .flag(let flag): out.boolean(flag)
            case .text(let text): out.string(text)
            case .instant(let wall): out.string(TimeText.milliseconds(wall.milliseconds))
            }
        }
    }

    private func line(_ fields: Fields) -> String {
        fields.map { key, value in
            let text =
                switch value {
                case .price(let ticks): ConfigurationReader.decimal(ticks * instrument.tickNano, Places.price)
                case .lots(let lots): ConfigurationReader.decimal(lots * instrument.lotE8, Places.quantity)
                case .bps(let bps): ConfigurationReader.decimal(bps.micro, Places.bps)
                case .integer(let integer): "\(integer)"
                case .flag(let flag): "\(flag)"
                case .text(let text): text
                case .instant(let wall): TimeText.milliseconds(wall.milliseconds)
                }
            return "\(key)=\(text)"
        }.joined(separator: " ")
    }

    /// As rows carry it.
    private static func id(_ id: Int64) -> String { "\(id >> 32)-\(id & 0xffff_ffff)" }
}
