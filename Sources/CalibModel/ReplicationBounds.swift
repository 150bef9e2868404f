/// The sizes that decide how edge and hub compare and hold feed files. A simulated world takes smaller ones, so that every bound is met.
package struct ReplicationBounds: Sendable {
    /// A file is compared by the checksum of each so many bytes (SPEC 8.2).
    package var blockBytes = Limits.resumeBlockBytes
    /// Checksums in one answer.
    package var pageBlocks = Limits.resumePageBlocks
    /// Accepted and unsynced bytes of all connections of a hub.
    package var poolBytes = Int64(Limits.hubPoolBytes)

    package init() {}

    package static let production = ReplicationBounds()
}
