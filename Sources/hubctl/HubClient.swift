import ArgumentParser
import CalibModel
import NIOCore
import NIOPosix
import NodeShell
import Wire

/// A hub's answer to one request.
struct HubAnswer: Sendable {
    /// Null when the answer came as chunks.
    var body: JSONValue
    /// The chunks' bytes, joined.
    var bytes: [UInt8]
}

/// One request over a connection of its own.
enum HubClient {
    /// Largest answer held in memory: a dataset of a year in 10-s intervals of one symbol is 2 GB, a usual one a few MB.
    static let answerBytesMax = 1 << 30

    /// Asks and waits. `seconds`: until the reply, from the moment the connection is there; before, `Limits.helloNanoseconds` applies.
    /// Progress is called on another thread, while this one waits.
    ///
    /// - Parameters:
    ///   - held: the beginning of the answer's bytes, from an earlier try. The hub goes on behind it, or begins anew.
    ///   - keep: called with each chunk and its offset as it comes, on another thread.
    static func ask(
        _ verb: String, _ arguments: [String: String], of target: HubTarget, seconds: Int, held: [UInt8] = [],
        keep: @escaping @Sendable (_ payload: [UInt8], _ offset: Int64) -> Void = { _, _ in },
        progress: @escaping @Sendable (_ done: Int64, _ total: Int64, _ text: String) -> Void = { _, _, _ in }
    ) throws(HubFailure) -> HubAnswer {
        let context: TLSContext
        do throws(TLSError) { context = try .client(target.files) } catch { throw HubFailure(error.message, Exit.configuration) }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: HubAnswer.self)
        let conversation = Conversation(
            request: Message.Request(id: 1, verb: verb, arguments: arguments), seconds: seconds, held: held, keep: keep, promise: promise,
            progress: progress)
        LineClient.connect(
            host: target.host, port: target.port, serverName: target.serverName, context: context, on: loop, delegate: conversation
        ).whenFailure { error in
            promise.fail(
                HubFailure(
                    "\(error)", hint: "is calib-hub running there, and are --server-name and --authority those of its certificate?",
                    Exit.unreachable))
        }
        do { return try promise.futureResult.wait() } catch let failure as HubFailure { throw failure } catch {
            throw HubFailure("\(error)", Exit.failed)
        }
    }
}

/// hello, welcome, request, then progress and chunks until the reply. Made on the caller's thread and handed to the event loop, where alone
/// it is touched afterwards.
private final class Conversation: LineLinkDelegate {
    private enum State { case greeting, waiting, over }

    private let request: Message.Request
    private let seconds: Int
    private let promise: EventLoopPromise<HubAnswer>
    private let progress: @Sendable (Int64, Int64, String) -> Void
    private var state = State.greeting
    private var bytes: [UInt8]
    private var isFirstChunk = true
    private let keep: @Sendable ([UInt8], Int64) -> Void
    private var deadline: Scheduled<Void>?
    private var pinging: Scheduled<Void>?
    private var pings: Int64 = 0

    init(
        request: Message.Request, seconds: Int, held: [UInt8], keep: @escaping @Sendable ([UInt8], Int64) -> Void,
        promise: EventLoopPromise<HubAnswer>,
        progress: @escaping @Sendable (Int64, Int64, String) -> Void
    ) {
        self.request = request
        self.seconds = seconds
        bytes = held
        self.keep = keep
        self.promise = promise
        self.progress = progress
    }

    func opened(_ link: LineLink) {
        link.send(.hello(Message.Hello(version: "calibrant 0.1.0", edge: nil)))
        link.flush()
        deadline = link.eventLoop.assumeIsolated().scheduleTask(in: .seconds(Int64(seconds))) { [self] in
            finish(
                .failure(
                    HubFailure(
                        "the hub has not answered '\(request.verb)' within \(seconds) s",
                        hint: "it may still be at it; --timeout SECONDS waits longer", Exit.timeout)), link)
        }
        ping(link)
    }

    /// So that neither side takes a long answer for a dead peer.
    private func ping(_ link: LineLink) {
        pinging = link.eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(Limits.pingNanoseconds)) { [self] in
            pings += 1
            link.send(.ping(number: pings))
            link.flush()
            ping(link)
        }
    }

    func received(_ frame: LineFraming.Frame, on link: LineLink) {
        switch (state, frame.message) {
        case (.over, _): break
        case (_, .error(let code, let text)): finish(.failure(Self.refusal(code, text)), link)
        case (_, .ping(let number)):
            link.send(.pong(number: number))
            link.flush()
        case (.greeting, .welcome(let welcome)):
            guard (ProtocolVersion.oldest...ProtocolVersion.current).contains(welcome.version) else {
                return finish(
                    .failure(HubFailure("the hub speaks protocol \(welcome.version), which is not known here", Exit.failed)), link)
            }
            state = .waiting
            link.send(.request(request))
            link.flush()
        case (.waiting, .progress(let step)) where step.id == request.id: progress(step.done, step.total, step.text)
        case (.waiting, .chunk(let chunk)) where chunk.id == request.id: take(chunk, frame.payload, link)
        case (.waiting, .reply(let reply)) where reply.id == request.id: finish(result(of: reply.outcome), link)
        // A later hub may say more, and a pong needs no answer.
        default: break
        }
    }

    private func take(_ chunk: Message.Chunk, _ payload: [UInt8], _ link: LineLink) {
        if isFirstChunk, chunk.offset == 0 { bytes = [] }
        isFirstChunk = false
        guard chunk.offset == bytes.count else {
            return finish(.failure(HubFailure("the hub's answer has a hole at byte \(bytes.count)", hint: "try again", Exit.failed)), link)
        }
        guard bytes.count + payload.count <= HubClient.answerBytesMax else {
            return finish(.failure(HubFailure("the hub's answer is longer than \(HubClient.answerBytesMax) bytes", Exit.failed)), link)
        }
        keep(payload, Int64(bytes.count))
        bytes += payload
        progress(Int64(bytes.count), 0, "bytes received")
    }

    private func result(of outcome: Message.Reply.Outcome) -> Result<HubAnswer, HubFailure> {
        switch outcome {
        case .ok(let body): .success(HubAnswer(body: body, bytes: bytes))
        case .failed(let code, let text, let exit):
            .failure(
                HubFailure(text, code == "not_authorised" ? Exit.notAuthorised : ExitCode(Int32(truncatingIfNeeded: exit)), word: code))
        }
    }

    func rejected(_ error: WireError, on link: LineLink) {}
    func drained(_ link: LineLink) {}

    /// The hub's refusal comes after TLS is done on our side: a certificate it does not take is an alert, one it takes but may not act an
    /// `error`.
    func closed(_ link: LineLink, reason: String) {
        let failure: HubFailure
        if state == .greeting, case .alert? = link.tlsFailure {
            failure = HubFailure(
                "the hub does not accept this certificate: \(reason)", hint: "is it of the hub's authority, and not expired?",
                Exit.notAuthorised)
        } else {
            failure = HubFailure(
                "the hub was lost before it answered: \(reason)", hint: "what was asked may have been done", Exit.unreachable)
        }
        finish(.failure(failure), link)
    }

    /// An `error` ends what was asked, whether the hub closes the connection behind it or not.
    private static func refusal(_ code: String, _ text: String) -> HubFailure {
        HubFailure("the hub refused: \(text)", code == "not_authorised" ? Exit.notAuthorised : Exit.failed, word: code)
    }

    private func finish(_ result: Result<HubAnswer, HubFailure>, _ link: LineLink) {
        guard state != .over else { return }
        state = .over
        deadline?.cancel()
        pinging?.cancel()
        link.close()
        promise.completeWith(result.mapError { $0 })
    }
}
