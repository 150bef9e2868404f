import CalibModel
import TestSupport
import Testing
import Wire

struct SwitchbackTests {
    private static let names = (0..<20).map { "S\($0)" }
    private static func design(jitter: Int64 = 0, ramp: [Switchback.RampStep] = []) -> Switchback {
        Switchback(
            startMilliseconds: 1_700_000_000_000, jitterMilliseconds: jitter, key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908,
            clusters: Switchback.matched(names), ramp: ramp)
    }

    /// Routing changed with every process. These are the coins of SipHash-2-4 under the key 00 01 ... 0f.
    @Test func fault13_assignmentIsTheSameInEveryProcess() {
        let design = Self.design()
        let coins = (0..<32).map { design.bIsSecond(design.clusters[0], pair: Int32($0)) }
        let expected = (0..<32).map {
            KeyedHash.hash("0|\($0)".utf8, key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908) & 1 == 1
        }
        #expect(coins == expected)
        #expect(coins.contains(true) && coins.contains(false))
    }

    /// Arms that hold different symbols are confounded with them.
    @Test(arguments: [0, 120_000])
    func fault14_everySymbolPlaysBothArmsInEveryPair(jitter: Int64) throws {
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

    /// With few symbols an arm was empty.
    @Test(arguments: 2...9) func fault13_fewSymbolsFillBothArms(count: Int) {
        for seed in 0..<50 {
            let salt = String(repeating: "0", count: 30) + (seed < 16 ? "0" : "") + String(seed, radix: 16)
            let split = ExperimentSpec.split(Self.names.prefix(count).map(\.self), splitMicro: 500_000, salt: salt)
            #expect(!split.a.isEmpty && !split.b.isEmpty)
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

    /// The ranks are worked out once, so whoever changes what they follow from changes them.
    @Test func aRampFollowsItsFields() {
        var random = SeededRandom(seed: 7)
        for _ in 0..<20 {
            let target = Self.randomDesign(&random)
            var design = Self.randomDesign(&random)
            design.clusters = target.clusters
            design.ramp = target.ramp
            (design.key0, design.key1) = (target.key0, target.key1)
            design.jitterMilliseconds = target.jitterMilliseconds
            for cluster in target.clusters {
                #expect(design.jitter(of: cluster.group) == target.jitter(of: cluster.group))
                for pair in Int32(0)..<12 {
                    #expect(design.isEnrolled(cluster.group, pair: pair) == target.isEnrolled(cluster.group, pair: pair))
                }
            }
        }
    }

    /// Nobody judges what comes behind it.
    @Test func theLastPairIsTheLast() {
        let design = Self.design()
        let end = design.startMilliseconds + Int64(Limits.experimentPairsMax) * 600_000
        for cluster in design.clusters.prefix(4) {
            #expect(Set([-450_000, -150_000].map { design.place(of: cluster, at: end + $0).arm }) == [.a, .b])
            #expect(design.place(of: cluster, at: end - 1).why == .schedule)
            for time in [end, end + 300_000, end + 450_000, Int64.max / 2] {
                let place = design.place(of: cluster, at: time)
                #expect(place.arm == .a && place.why == .join)
            }
        }
    }

    /// The rules once more, written slowly: blocks are walked from T0, groups sorted. Every edge of every design, a millisecond to either side.
    @Test(arguments: UInt64(1)...20)
    func placesFollowTheRules_inRandomDesigns(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let design = Self.randomDesign(&random)
        for cluster in design.clusters {
            let start = design.startMilliseconds + design.jitter(of: cluster.group)
            for block in Int64(-3)..<24 {
                let edge = start + block * design.blockMilliseconds
                for edge in [edge, edge + design.washoutMilliseconds, design.startMilliseconds] {
                    for time in edge - 1...edge + 1 {
                        let place = design.place(of: cluster, at: time)
                        let expected = Self.slowPlace(of: cluster, in: design, at: time)
                        #expect((place.arm, place.why, place.block, place.blockEndMilliseconds) == expected, "\(time - start)")
                        for symbol in cluster.symbols { #expect(design.place(of: symbol, at: time) == place) }
                    }
                }
            }
        }
    }

    private static func randomDesign(_ random: inout SeededRandom) -> Switchback {
        let groups = 1 + random.next(below: 8)
        let clusters = (0..<groups).flatMap { group -> [Switchback.Cluster] in
            let both = random.next(below: 2) == 0
            return (0...(both ? 1 : 0)).map { .init(symbols: ["S\(group).\($0)", "T\(group).\($0)"], group: group, isOpposite: $0 == 1) }
        }
        let block = Int64(1 + random.next(below: 60)) * 10_000
        var ramp: [Switchback.RampStep] = []
        for step in 0..<random.next(below: 4) {
            ramp.append(
                .init(
                    fromPair: Int32(3 * step + random.next(below: 3)),
                    shareMicro: Int64((step + 1) * (150_000 + random.next(below: 100_000)))))
        }
        return Switchback(
            startMilliseconds: 1_700_000_000_000 + Int64(random.next(below: 1000)) * 10_000, blockMilliseconds: block,
            washoutMilliseconds: Int64(random.next(below: Int(block / 10_000))) * 10_000,
            jitterMilliseconds: Int64(random.next(below: 40)) * 10_000, key0: random.next(), key1: random.next(), clusters: clusters,
            ramp: ramp)
    }

    private static func slowPlace(of cluster: Switchback.Cluster, in design: Switchback, at time: Int64) -> (Arm, ArmReason, Int32, Int64) {
        func hash(_ text: String) -> UInt64 { KeyedHash.hash(text.utf8, key0: design.key0, key1: design.key1) }
        var (begin, block) = (design.startMilliseconds + design.jitter(of: cluster.group), Int32(0))
        while time < begin { (begin, block) = (begin - design.blockMilliseconds, block - 1) }
        while time >= begin + design.blockMilliseconds { (begin, block) = (begin + design.blockMilliseconds, block + 1) }
        let end = begin + design.blockMilliseconds
        let outside = (Arm.a, ArmReason.join, block, end)
        guard block >= 0 else { return outside }
        let pair = block / 2
        if !design.ramp.isEmpty {
            var share: Int64 = 0
            for step in design.ramp where step.fromPair <= pair { share = step.shareMicro }
            let groups = Set(design.clusters.map(\.group)).sorted { (hash("\($0)|ramp"), $0) < (hash("\($1)|ramp"), $1) }
            // The first n of N groups, n the smallest with n / N >= share.
            var enrolled = 0
            while Int64(enrolled) * 1_000_000 < share * Int64(groups.count) { enrolled += 1 }
            guard groups.prefix(enrolled).contains(cluster.group) else { return outside }
        }
        var bIsSecond = hash("\(cluster.group)|\(pair)") % 2 == 1
        if cluster.isOpposite { bIsSecond.toggle() }
        let isSecond = block == 2 * pair + 1
        return (isSecond == bIsSecond ? .b : .a, time - begin < design.washoutMilliseconds ? .washout : .schedule, block, end)
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
