import CalibModel
import EdgeCore
import Foundation
import HubCore
import Simulation
import TestSupport
import Testing
import Wire

/// Conversations that programs of each served version had, as they were sent (`proto-json/conversations/<version>`): a first connection of an edge, and
/// the one after its restart. Whoever changes the protocol finds out here whom it leaves behind.
struct ConversationTests {
    private static let versions = (ProtocolVersion.oldest...ProtocolVersion.current).map { version in ["\(version)/1", "\(version)/2"] }

    private static func read(_ place: String, _ side: String) throws -> [LineFraming.Frame] {
        let path = Repository.path("proto-json/conversations/\(place).\(side).jsonl")
        var framing = LineFraming()
        try Data(contentsOf: URL(fileURLWithPath: path)).withUnsafeBytes { framing.append($0) }
        var frames: [LineFraming.Frame] = []
        while let frame = try framing.next() { frames.append(frame) }
        return frames
    }

    private static func appended(_ frames: [LineFraming.Frame]) -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [:]
        for frame in frames { if case .append(let append) = frame.message { files[append.file, default: []] += frame.payload } }
        return files
    }

    /// Today's hub hears what the edge said then: it answers what the hub of then answered, as far as that version has words for it.
    @Test(arguments: versions) func todaysHubServesTheEdgesOfThen(places: [String]) throws {
        let disk = SimDisk(seed: 1)
        var ingest = Ingest()
        var committer = Committer(disk: disk)
        var held: [String: [UInt8]] = [:]
        for (number, place) in places.enumerated() {
            let link = LinkID(number + 1)
            let edge = try Self.read(place, "edge")
            guard case .hello(let hello)? = edge.first?.message, let host = hello.edge?.host else {
                Issue.record("\(place) does not begin with hello")
                return
            }
            var said: [Message] = []
            func perform(_ effects: [Ingest.Effect], _ payload: [UInt8]) {
                for effect in effects {
                    switch effect {
                    case .send(_, let message): said.append(message)
                    case .close(_, let code, let text): Issue.record("\(place): \(code): \(text)")
                    case .survey(let link, let host, let epoch): committer.survey(link, host: host, epoch: epoch)
                    case .inspect(let link, let host, let file, let block):
                        committer.inspect(link, host: host, file: file, fromBlock: block)
                    case .verify(let link, let host, let file): committer.verify(link, host: host, file: file)
                    case .write(let host, let file, let epoch, let offset):
                        payload.withUnsafeBytes { committer.write($0, host: host, file: file, epoch: epoch, offset: offset) }
                    case .welcome(_, let hello, let seqs):
                        said.append(
                            .welcome(
                                .init(
                                    version: min(hello.protocolMax, ProtocolVersion.current), software: "", identity: "", revision: .zero,
                                    wallMilliseconds: 0, highestSeq: seqs)))
                    // Its digest is that of the bytes the edge has sent, which are compared below.
                    case .seal(let link, _, let file, _, _): perform(ingest.sealed(link, file: file, isEqual: true), [])
                    case .record, .pauseReading, .resumeReading, .alarm: break
                    }
                }
            }
            func settle() {
                for result in committer.endRound().results {
                    switch result {
                    case .committed(let host, let file, let length, _):
                        perform(ingest.committed(host: host, file: file, length: length), [])
                    case .inspected(let link, _, let file, let found): perform(ingest.inspected(link, file: file, found), [])
                    case .surveyed(let link, let files, let seqs): perform(ingest.surveyed(link, files: files, highestSeq: seqs), [])
                    default: Issue.record("\(place): \(result)")
                    }
                }
            }
            perform(ingest.opened(link, peer: Peer(role: .edge, name: host)), [])
            for frame in edge {
                perform(ingest.received(frame.message, on: link, at: Instant(nanoseconds: 1)) ?? [], frame.payload)
                settle()
            }
            _ = ingest.closed(link, at: Instant(nanoseconds: 2))
            // The hub of then.
            let before = try Self.read(place, "hub").map(\.message)
            func welcome(_ messages: [Message]) -> Message.Welcome? {
                messages.lazy.compactMap { if case .welcome(let welcome) = $0 { welcome } else { nil } }.first
            }
            #expect(welcome(said)?.version == welcome(before)?.version)
            #expect(welcome(said)?.highestSeq.sorted { $0.feed < $1.feed } == welcome(before)?.highestSeq.sorted { $0.feed < $1.feed })
            func resumes(_ messages: [Message]) -> [String: Message.Resume] {
                var found: [String: Message.Resume] = [:]
                for case .resume(var resume) in messages {
                    resume.part = nil
                    found[resume.file] = resume
                }
                return found
            }
            #expect(resumes(said) == resumes(before), "\(place)")
            func seals(_ messages: [Message]) -> [Message] { messages.filter { if case .sealed = $0 { true } else { false } } }
            #expect(seals(said) == seals(before), "\(place)")
            for (file, bytes) in Self.appended(edge) { held[file, default: []] += bytes }
            for (file, bytes) in held { #expect(disk.bytes(of: "host=\(host)/\(file)") == bytes, "\(place): \(file)") }
        }
        #expect(held.count >= 5)
    }

    /// Today's edge hears what the hub said then: it goes on, and says nothing that the hub of then would not know.
    @Test(arguments: versions.flatMap(\.self)) func todaysEdgeServesTheHubsOfThen(place: String) throws {
        let (edge, hub) = (try Self.read(place, "edge"), try Self.read(place, "hub").map(\.message))
        let known = Set(edge.map { "\($0.message.type)" }).union(["resume", "append", "ping", "pong", "error"])
        var uplink = Uplink { _ in 0 }
        let now = Instant(nanoseconds: 1)
        var said: [Message] = []
        func perform(_ effects: [Uplink.Effect]) {
            for effect in effects {
                switch effect {
                case .send(let message): said.append(message)
                case .close(let code, let text): Issue.record("\(place): \(code): \(text)")
                case .ask(let question):
                    // Its bytes are what the hub has: the checksums it named.
                    let blocks = hub.lazy.compactMap {
                        if case .resume(let resume) = $0, resume.file == question.file { resume.blocks } else { nil }
                    }
                    perform(uplink.step(.answered(question, .init(blocks: blocks.first ?? [])), at: now))
                case .sendBytes: perform(uplink.step(.turnEnded, at: now))
                case .connect, .deliver, .welcomed, .differs, .forked, .complained: break
                }
            }
        }
        var lengths: [String: Int64] = [:]
        for case .append(let append) in edge.map(\.message) {
            lengths[append.file] = max(lengths[append.file] ?? 0, append.offset + Int64(append.bytes))
        }
        for (file, length) in lengths.sorted(by: { $0.key < $1.key }) {
            perform(uplink.step(.grew(file: file, syncedLength: length), at: now))
            // A hub that knows no seals hears of none.
            guard place.hasPrefix("1/") else { continue }
            perform(uplink.step(.sealed(.init(file: file, bytes: length, rows: 1, sha256: String(repeating: "a", count: 64))), at: now))
        }
        for case .sealed(let sealed) in edge.map(\.message) {
            perform(uplink.step(.grew(file: sealed.file, syncedLength: sealed.bytes), at: now))
            perform(uplink.step(.sealed(sealed), at: now))
        }
        perform(uplink.step(.started, at: now))
        perform(uplink.step(.connected(Message.Hello(version: "test", edge: nil)), at: now))
        for message in hub { perform(uplink.step(.received(message), at: now)) }
        #expect(uplink.isConnected && uplink.backlogBytes == 0)
        #expect(said.dropFirst().allSatisfy { known.contains("\($0.type)") }, "\(said.map { "\($0.type)" })")
    }
}
