import CalibModel
import EdgeCore
import Testing
import Wire

/// Idea: the log is a list of rows kept by the test, which plays quote path and disk.
struct KillSwitchTests {
    @Test func hubsKillIsInEffectFirst_thenApplied_thenDurable_thenLatched() {
        var host = Host()
        let order = KillSwitch.Order.command("k1")
        #expect(host.step(.command(Host.command("k1", .kill))) == [.kill([.host], order)])
        #expect(host.kills.isHostKilled && host.kills.isKilled(1))
        let row = KillRecord(
            milliseconds: 77, action: .kill, symbol: nil, by: "alice", reason: "r", command: "k1", cancelledOrders: 4,
            revision: Revision(term: 1, number: 2))
        #expect(
            host.step(.performed(order, cancelledOrders: 4, atMilliseconds: 77)) == [
                Host.result("k1", .applied, 77, 4), .record(row, order),
            ])
        #expect(host.write(row, order) == [Host.result("k1", .latched, 77, 4)])
        // After a restart it is killed before anything is quoted, and the repeated command is answered from the log.
        host.restart()
        #expect(host.started == [.kill([.host], nil)])
        #expect(
            host.step(.command(Host.command("k1", .kill))) == [Host.result("k1", .applied, 77, 4), Host.result("k1", .latched, 77, 4)])
        #expect(host.kills.revision == Revision(term: 1, number: 2))
    }

    @Test func repeatedKillAfterARelease_killsNothing() {
        var host = Host()
        host.perform(host.step(.command(Host.command("k1", .kill))))
        host.perform(host.step(.command(Host.command("r1", .release))))
        #expect(!host.kills.isHostKilled && !host.kills.isKilled(0))
        #expect(host.step(.command(Host.command("k1", .kill))).allSatisfy { if case .say = $0 { true } else { false } })
        #expect(!host.kills.isKilled(0))
    }

    @Test func releaseTakesEffectOnlyWhenItsRowIsDurable() {
        var host = Host()
        host.perform(host.step(.command(Host.command("k1", .kill))))
        let order = KillSwitch.Order.command("r1")
        let effects = host.step(.command(Host.command("r1", .release)))
        guard case .record(let row, order) = effects.first, effects.count == 1 else {
            Issue.record("\(effects)")
            return
        }
        #expect(host.kills.isKilled(0))
        #expect(host.step(.recordFailed(order)).first.map(\.isRejection) == true)
        #expect(host.kills.isKilled(0))
        _ = host.step(.command(Host.command("r1", .release)))
        #expect(host.write(row, order) == [.release([.host]), Host.result("r1", .applied, 9, 0), Host.result("r1", .latched, 9, 0)])
    }

    @Test func oneSymbolsKillLeavesTheOthers_andEndsWithItsOwnReleaseOnly() {
        var host = Host()
        host.perform(host.step(.command(Host.command("k1", .kill, symbol: "BBB"))))
        #expect(!host.kills.isKilled(0) && host.kills.isKilled(1) && !host.kills.isHostKilled)
        host.perform(host.step(.command(Host.command("k2", .kill))))
        host.perform(host.step(.command(Host.command("r2", .release))))
        #expect(!host.kills.isKilled(0) && host.kills.isKilled(1))
        host.perform(host.step(.command(Host.command("r1", .release, symbol: "BBB"))))
        #expect(!host.kills.isKilled(1))
        #expect(host.step(.command(Host.command("k3", .kill, symbol: "ZZZ"))).first.map(\.isRejection) == true)
    }

    @Test func fileMeansKillAll_onceForTheWholeTimeItIsThere() {
        var host = Host()
        let effects = host.step(.fileSeen)
        #expect(effects == [.kill([.host], .file)])
        #expect(host.step(.fileSeen) == [])
        host.perform(effects)
        #expect(host.step(.fileSeen) == [])
        #expect(host.rows.map(\.reason) == ["file KILL"])
        host.restart()
        #expect(host.kills.isHostKilled)
    }

    @Test func rowThatCannotBeWrittenIsTriedAgain_whileItStaysKilled() {
        var host = Host()
        _ = host.step(.fileSeen)
        let effects = host.step(.performed(.file, cancelledOrders: 1, atMilliseconds: 5))
        #expect(host.step(.recordFailed(.file)) == [])
        #expect(host.kills.isKilled(0))
        #expect(host.step(.tick(atMilliseconds: 1_000)) == effects)
        #expect(host.step(.tick(atMilliseconds: 2_000)) == [])
    }

    @Test func rowsOfAnotherProcessCount_butDoNotLiftAKillWhoseRowIsOnItsWay() {
        var host = Host()
        host.rows.append(Host.row(.kill))
        #expect(host.step(.log(host.bytes)) == [.kill([.host], nil)])
        host.rows.append(Host.row(.release))
        #expect(host.step(.log(host.bytes)) == [.release([.host])])
        _ = host.step(.fileSeen)
        host.rows.append(Host.row(.release))
        #expect(host.step(.log(host.bytes)) == [])
        #expect(host.kills.isKilled(0))
    }

    @Test func damagedRowCountsAsAKillOfTheHost_untilALaterRelease() {
        var host = Host()
        let release = Host.row(.release).line
        #expect(host.step(.log(Array("nonsense\n".utf8))) == [.damaged(lines: [1]), .kill([.host], nil)])
        #expect(host.step(.log(Array("nonsense\n".utf8))) == [])
        #expect(host.step(.log(Array("nonsense\n".utf8) + release)) == [.release([.host])])
        var wrong = Host.row(.kill).line
        wrong.replaceSubrange(0..<wrong.count, with: String(decoding: wrong, as: UTF8.self).replacing("\"all\"", with: "\"symbol\"").utf8)
        var other = Host()
        #expect(other.step(.log(wrong)) == [.damaged(lines: [1]), .kill([.host], nil)])
    }
}

// MARK: - More of the file

extension KillSwitchTests {
    /// A kill is called applied before its row is durable: what a crash left of the row must not be nothing.
    @Test func tornEndCountsAsAKillOfTheHost_untilARowFollowsThatReleasesIt() {
        var host = Host()
        let torn = Array(Host.row(.kill).line.dropLast(30))
        #expect(host.step(.log(torn)) == [.damaged(lines: [1]), .kill([.host], nil)])
        let symbol = KillRecord(milliseconds: 1, action: .release, symbol: "AAA", by: "b", reason: "r").line
        #expect(host.step(.log(torn + [0x0a] + symbol)) == [])
        #expect(host.step(.log(torn + [0x0a] + symbol + Host.row(.release).line)) == [.release([.host])])
    }

    @Test func rowsThatVanishLiftNothing_aReleaseBehindThemDoes() {
        var host = Host()
        let kill = KillRecord(milliseconds: 1, action: .kill, symbol: "BBB", by: "b", reason: "r").line
        let release = Host.row(.release).line
        #expect(host.step(.log(release + Host.row(.kill).line + kill)) == [.kill([.host, .symbol(1)], nil)])
        #expect(host.step(.log(release)) == [.rowsGone])
        #expect(host.step(.log([])) == [.rowsGone])
        #expect(host.kills.isHostKilled && host.kills.isKilled(1))
        #expect(host.step(.log(release)) == [.release([.host])])
        #expect(!host.kills.isKilled(0) && host.kills.isKilled(1))
    }
}

// MARK: - Support

extension KillSwitch.Effect {
    fileprivate var isRejection: Bool { if case .say(.commandResult(let result)) = self { result.state == .rejected } else { false } }
}

private struct Host {
    var kills: KillSwitch
    var rows: [KillRecord] = []
    /// Effects of the first reading of the log.
    var started: [KillSwitch.Effect] = []

    init() {
        kills = KillSwitch(symbols: ["AAA", "BBB"])
        started = kills.step(.log([]))
    }

    var bytes: [UInt8] { rows.flatMap(\.line) }

    mutating func restart() {
        kills = KillSwitch(symbols: ["AAA", "BBB"])
        started = kills.step(.log(bytes))
    }

    mutating func step(_ input: KillSwitch.Input) -> [KillSwitch.Effect] { kills.step(input) }

    mutating func write(_ row: KillRecord, _ order: KillSwitch.Order) -> [KillSwitch.Effect] {
        rows.append(row)
        return step(.recorded(order, log: bytes))
    }

    /// Does everything, at 9 ms.
    mutating func perform(_ effects: [KillSwitch.Effect]) {
        for effect in effects {
            switch effect {
            case .kill(_, let order?): perform(step(.performed(order, cancelledOrders: 0, atMilliseconds: 9)))
            case .record(let row, let order): perform(write(row, order))
            case .kill, .release, .say, .damaged, .rowsGone: break
            }
        }
    }

    static func command(_ id: String, _ kind: Message.CommandKind, symbol: String? = nil) -> Message.Command {
        Message.Command(
            id: id, revision: Revision(term: 1, number: 2), kind: kind, experiment: nil, symbol: symbol, reason: "r", by: "alice",
            issuedMilliseconds: 9)
    }

    static func row(_ action: KillRecord.Action) -> KillRecord {
        KillRecord(milliseconds: 1, action: action, symbol: nil, by: "bob", reason: "r")
    }

    static func result(_ id: String, _ state: Message.CommandState, _ milliseconds: Int64, _ cancelled: Int64) -> KillSwitch.Effect {
        .say(.commandResult(.init(id: id, state: state, atMilliseconds: milliseconds, cancelledOrders: cancelled, text: nil)))
    }
}
