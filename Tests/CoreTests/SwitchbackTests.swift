import CalibModel
import Testing

struct SwitchbackTests {
    private static let names = (0..<20).map { "S\($0)" }
    private static func design(jitter: Int64 = 0, ramp: [Switchback.RampStep] = []) -> Switchback {
        Switchback(
            startMilliseconds: 1_700_000_000_000, jitterMilliseconds: jitter, key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908,
            clusters: Switchback.matched(names), ramp: ramp)
    }

    /// Fault 13: routing changed with every process. These are the coins of SipHash-2-4 under the key 00 01 ... 0f.
    @Test func assignmentIsTheSameInEveryProcess() {
        let design = Self.design()
        let coins = (0..<32).map { design.bIsSecond(design.clusters[0], pair: Int32($0)) }
        let expected = (0..<32).map {
            KeyedHash.hash("0|\($0)".utf8, key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908) & 1 == 1
        }
        #expect(coins == expected)
        #expect(coins.contains(true) && coins.contains(false))
    }

    /// Fault 14: arms that hold different symbols are confounded with them.
    @Test(arguments: [0, 120_000])
    func everySymbolPlaysBothArmsInEveryPair(jitter: Int64) throws {
        let design = Self.design(jitter: jitter)
        for pair in 0..<50 {
            for cluster in design.clusters {
                let start = design.startMilliseconds + design.jitter(of: cluster.group) + Int64(pair) * 600_000
                let first = design.place(of: cluster, at: start + 150_000)
                let second = design.place(of: cluster, at: start + 450_000)
                #expect(first.block == Int32(2 * pair) && second.block == Int32(2 * pair + 1))
                #expect(Set([first.arm, second.arm]) == [.a, .b])
                #expect(first.why == .schedule && second.why == .schedule)
                #expect((second.arm == .b) == design.bIsSecond(cluster, pair: Int32(pair)))
            }
        }
    }

    @Test func matchedSymbolsPlayOppositeArms() {
        let design = Self.design(jitter: 60_000)
        for minute in 0..<600 {
            let time = design.startMilliseconds + 600_000 + Int64(minute) * 60_000
            for index in stride(from: 0, to: 20, by: 2) {
                let (one, other) = (
                    design.place(of: design.clusters[index], at: time), design.place(of: design.clusters[index + 1], at: time)
                )
                #expect(one.arm != other.arm && one.block == other.block)
            }
        }
    }

    @Test func theBlocksEdgesAreExact() throws {
        let design = Self.design()
        let start = design.startMilliseconds
        let before = try #require(design.place(of: "S3", at: start - 1))
        #expect(before.why == .join && before.arm == .a && before.block == -1 && before.blockEndMilliseconds == start)
        let washout = try #require(design.place(of: "S3", at: start + 29_999))
        #expect(washout.why == .washout && washout.block == 0)
        #expect(design.place(of: "S3", at: start + 30_000)?.why == .schedule)
        #expect(design.place(of: "S3", at: start + 299_999)?.block == 0)
        #expect(design.place(of: "S3", at: start + 300_000)?.block == 1)
        #expect(design.place(of: "unknown", at: start) == nil)
    }

    /// Snapshots are cut at multiples of 10 s: a block that ended between two would have its last markouts in a row that ends too late.
    @Test func jitterIsWholeSteps() {
        let design = Self.design(jitter: 300_000)
        let jitters = Set((0..<10).map { design.jitter(of: $0) })
        #expect(jitters.count > 3 && jitters.allSatisfy { $0.isMultiple(of: 10_000) && (0...300_000).contains($0) })
    }

    @Test func symbolsOfAClusterSwitchTogether() {
        let design = Switchback(
            startMilliseconds: 0, key0: 1, key1: 2,
            clusters: [.init(symbols: ["BTC", "ETH"], group: 0, isOpposite: false), .init(symbols: ["SOL"], group: 1, isOpposite: false)])
        for minute in 0..<200 {
            let time = Int64(minute) * 60_000
            #expect(design.place(of: "BTC", at: time) == design.place(of: "ETH", at: time))
        }
    }

    @Test func fewSymbolsFlipAlone() {
        #expect(Set(Switchback.matched(["A", "B", "C"]).map(\.group)).count == 3)
        let eleven = Switchback.matched((0..<11).map { "S\($0)" })
        #expect(Set(eleven.map(\.group)).count == 6)
        #expect(eleven.count { $0.group == 5 } == 1)
    }

    @Test func aRampOnlyAddsGroups() {
        let design = Self.design(ramp: [.init(fromPair: 2, shareMicro: 100_000), .init(fromPair: 4, shareMicro: 500_000)])
        func enrolled(_ pair: Int32) -> Set<Int> { Set((0..<10).filter { design.isEnrolled($0, pair: pair) }) }
        #expect(enrolled(1).isEmpty)
        #expect(enrolled(2).count == 1 && enrolled(4).count == 5)
        #expect(enrolled(4).isSuperset(of: enrolled(2)))
        let outside = design.clusters.filter { !enrolled(4).contains($0.group) }
        #expect(outside.allSatisfy { design.place(of: $0, at: design.startMilliseconds + 4 * 600_000 + 100_000).arm == .a })
    }

    @Test func aShareOfTheHostsPlaysB() {
        let hosts = (0..<8).map { "edge-\($0)" }
        for symbol in Self.names {
            let onB = hosts.count {
                HostSymbolSplit.arm(of: $0, symbol: symbol, hosts: hosts.reversed(), splitMicro: 250_000, key0: 1, key1: 2) == .b
            }
            #expect(onB == 2)
        }
    }
}
