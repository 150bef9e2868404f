import ArgumentParser
import Glibc
import Simulation
import Wire

/// `calib-lab fuzz`: damaged input to everything that reads a venue or a peer.
struct Fuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Gives the readers of venue data and feeds, and the link's sessions, damaged input, from a seed.",
        discussion: """
            Targets: decimal (numbers, against arithmetic digit by digit), json (the reader, against a recognizer of RFC 8259), binance (the fast \
            reader against the one of any form, and members in any order), bybit (members in any order), node (a whole node: each frame counted, a \
            refused one changes no book), message (lines of the link, written and read again), session (a hub with an edge and an edge with a hub, \
            messages in any order with any values), row (lines of feeds, against a slow reader of the written rules). The inputs are shared out \
            evenly. The same seed and number give the same inputs.

            A disagreement is printed with its input. A trap ends the process with a signal; the newest line on stderr names the target and the seed \
            of the chunk it was in.

            Exit status: 0 all agreed; 1 a disagreement; 64 usage.
            """)

    enum Output: String, ExpressibleByArgument, CaseIterable { case table, json }

    @Option(help: "How many inputs, 1 to 1000000000.")
    var inputs = 1_000_000

    @Option(help: "The seed of the frames and of the damage.")
    var seed: UInt64 = 1

    @Option(help: ArgumentHelp("One target only.", valueName: FuzzTarget.allCases.map(\.rawValue).joined(separator: "|")))
    var target: String?

    @Option(name: .shortAndLong, help: "How the result is printed.")
    var output = Output.table

    /// Inputs under one seed.
    private static let chunk = 10_000

    func validate() throws {
        guard (1...1_000_000_000).contains(inputs) else { throw ValidationError("--inputs \(inputs): allowed are 1 to 1000000000") }
        guard target.map({ FuzzTarget(rawValue: $0) != nil }) ?? true else {
            throw ValidationError(
                "--target '\(target ?? "")': allowed are \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
        }
    }

    func run() throws {
        let targets = target.flatMap(FuzzTarget.init(rawValue:)).map { [$0] } ?? FuzzTarget.allCases
        let frames = FuzzFrames(seed: seed)
        var rows: [Row] = []
        for (place, target) in targets.enumerated() {
            let share = inputs / targets.count + (place < inputs % targets.count ? 1 : 0)
            do throws(FuzzDisagreement) {
                rows.append(try run(target, inputs: share, frames))
            } catch {
                printRows(rows)
                note("calib-lab fuzz: \(error.target.rawValue): \(error.text)")
                note("the input: \(Self.readable(error.input))")
                throw ExitCode(1)
            }
        }
        printRows(rows)
    }

    private struct Row {
        var target: FuzzTarget
        var tally: FuzzTally
        var nanoseconds: Int64
        var perSecond: Int64 { nanoseconds > 0 ? tally.inputs * 1_000_000_000 / nanoseconds : 0 }
    }

    private func run(_ target: FuzzTarget, inputs: Int, _ frames: FuzzFrames) throws(FuzzDisagreement) -> Row {
        let start = monotonicNanoseconds()
        var told = start
        var row = Row(target: target, tally: FuzzTally(), nanoseconds: 0)
        var done = 0
        while done < inputs {
            let chunkSeed = seed &+ UInt64(done / Self.chunk) &* 0x9e37_79b9_7f4a_7c15
            var fuzzer = Fuzzer(target, seed: chunkSeed, frames: frames)
            let count = min(Self.chunk, inputs - done)
            if monotonicNanoseconds() - told >= 5_000_000_000 {
                told = monotonicNanoseconds()
                note("fuzz: \(target.rawValue), \(done) of \(inputs) inputs, chunk seed \(chunkSeed)")
            }
            try fuzzer.run(inputs: count)
            row.tally.add(fuzzer.tally)
            done += count
        }
        row.nanoseconds = monotonicNanoseconds() - start
        return row
    }

    private func printRows(_ rows: [Row]) {
        guard output == .json else {
            print("target      inputs    accepted   inputs/s  refused")
            for row in rows {
                let refused = row.tally.rejected.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
                print(
                    Self.padded(row.target.rawValue, 8, left: true) + Self.padded("\(row.tally.inputs)", 10)
                        + Self.padded("\(row.tally.accepted)", 12) + Self.padded("\(row.perSecond)", 11) + "  "
                        + refused.joined(separator: ", "))
            }
            return
        }
        var json = JSONWriter()
        json.beginObject()
        // Beyond 2^53 a JSON number is not safe in every reader, so the seed is text.
        json.field("seed", string: String(seed))
        json.key("targets")
        json.beginArray()
        for row in rows {
            json.beginObject()
            json.field("target", string: row.target.rawValue)
            json.field("inputs", integer: row.tally.inputs)
            json.field("accepted", integer: row.tally.accepted)
            json.field("inputs_per_second", integer: row.perSecond)
            json.key("rejected")
            json.beginObject()
            for (reason, count) in row.tally.rejected.sorted(by: { $0.key < $1.key }) {
                json.key(data: reason)
                json.integer(count)
            }
            json.endObject()
            json.endObject()
        }
        json.endArray()
        json.endObject()
        print(String(decoding: json.bytes, as: UTF8.self))
    }

    private static func padded(_ text: String, _ width: Int, left: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - text.count))
        return left ? text + space : space + text
    }

    /// What is not plain ASCII is escaped.
    private static func readable(_ bytes: [UInt8]) -> String {
        let hex = Array("0123456789abcdef")
        return String(
            bytes.flatMap { byte -> [Character] in
                (0x20..<0x7f).contains(byte) && byte != 0x5c
                    ? [Character(UnicodeScalar(byte))] : ["\\", "x", hex[Int(byte >> 4)], hex[Int(byte & 15)]]
            })
    }
}
