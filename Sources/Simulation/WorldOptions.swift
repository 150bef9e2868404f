import CalibModel

/// What one simulated world is made of.
package struct WorldOptions: Sendable {
    /// A way to break a law on purpose, to see that its checker looks.
    package enum Canary: String, CaseIterable, Sendable {
        /// The hub's disk says that it has synced, and has not.
        case ackBeforeSync = "ack-before-sync"
        /// The hub answers `resume` with the edge's length instead of its own.
        case resumeFromEdge = "resume-from-edge"
        /// The edge's disk takes rows it has no room for.
        case dropOnFull = "drop-on-full"
        /// The edge ships what it has written, synced or not.
        case shipUnsynced = "ship-unsynced"
        /// The hub acts on a decision before it is in the control log.
        case effectBeforePersist = "effect-before-persist"
    }

    package var seed: UInt64
    package var edges = 2
    /// Of simulated time, before everything heals.
    package var hours = 2
    package var canary: Canary?
    package init(seed: UInt64) { self.seed = seed }
}

/// A law of ARCHITECTURE.md that does not hold in a world.
package struct BrokenLaw: Error, Sendable, Equatable {
    package var law: Int
    /// Simulated nanoseconds since the world's beginning.
    package var at: Int64
    package var text: String
}

/// What became of a world.
package struct WorldOutcome: Sendable {
    package var seed: UInt64
    /// Equal for equal options, on every machine.
    package var traceHash: UInt64
    package var broken: [BrokenLaw]
    package var faults: FaultCounts
    package var rowsWritten: Int64
    package var rowsHeld: Int64
    package var forks: Int64
    package var events: Int64
}

extension ReplicationBounds {
    /// Small, so that a few hundred rows fill blocks, pages and pools.
    static let simulated: ReplicationBounds = {
        var bounds = ReplicationBounds()
        (bounds.blockBytes, bounds.pageBlocks, bounds.poolBytes) = (4096, 8, 512 << 10)
        return bounds
    }()
}
