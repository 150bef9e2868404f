import Glibc

/// The system calls that feeds stand on, so that a test can let each of them fail as a disk does. Results and errno are the system's.
package struct FileCalls: Sendable {
    package var write: @Sendable (_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int, _ offset: Int) -> Int
    package var sync: @Sendable (_ descriptor: Int32) -> Int32
    package var truncate: @Sendable (_ descriptor: Int32, _ length: Int) -> Int32
    package var open: @Sendable (_ path: String) -> Int32

    package init(
        write: @escaping @Sendable (Int32, UnsafeRawPointer, Int, Int) -> Int, sync: @escaping @Sendable (Int32) -> Int32,
        truncate: @escaping @Sendable (Int32, Int) -> Int32, open: @escaping @Sendable (String) -> Int32
    ) {
        self.write = write
        self.sync = sync
        self.truncate = truncate
        self.open = open
    }

    package static let system = FileCalls(
        write: { pwrite($0, $1, $2, $3) }, sync: { fdatasync($0) }, truncate: { ftruncate($0, $1) },
        open: { Glibc.open($0, O_RDWR | O_CREAT | O_CLOEXEC, 0o644) })
}
