/// The directory of feed files as the cores see it: what they ask of a disk, and nothing about how it is done.
///
/// Paths are relative to the feeds directory. Each operation is done when it returns, and has done nothing that counts when it throws; only
/// `sync`, `syncAll` and `syncNames` make anything last. `SystemDisk` is the real one, `SimDisk` that of the simulated world.
package protocol FeedDisk {
    associatedtype Failure: Error, Sendable

    /// The names in a folder, ascending; empty when there is no such folder.
    mutating func names(in folder: String) throws(Failure) -> [String]
    /// Nil when there is no such file.
    mutating func length(of path: String) throws(Failure) -> Int64?
    /// Exactly these bytes.
    mutating func read(_ path: String, at offset: Int64, count: Int) throws(Failure) -> [UInt8]
    /// All of the bytes, at the place named; makes the file when it is not there. After an error some of them may be in the file.
    mutating func write(_ bytes: UnsafeRawBufferPointer, to path: String, at offset: Int64) throws(Failure)
    /// Leaves the first `length` bytes of a file.
    mutating func cut(_ path: String, to length: Int64) throws(Failure)
    /// What was written to the file so far lasts. After an error nobody knows what does.
    mutating func sync(_ path: String) throws(Failure)
    /// Of everything under the directory.
    mutating func syncAll() throws(Failure)
    /// The names in a folder last.
    mutating func syncNames(in folder: String) throws(Failure)
    /// A folder and its name, which last; nothing happens when it is there.
    mutating func makeFolder(_ folder: String) throws(Failure)
    /// Moves a file within its folder; `syncNames` makes it last.
    mutating func rename(_ from: String, to: String) throws(Failure)
    /// Nobody writes to the file for a while: what is kept open for it may go.
    mutating func release(_ path: String)
}

extension FeedDisk {
    package mutating func write(_ bytes: [UInt8], to path: String, at offset: Int64) throws(Failure) {
        try bytes.withUnsafeBufferPointer { bytes throws(Failure) in try write(UnsafeRawBufferPointer(bytes), to: path, at: offset) }
    }
}
