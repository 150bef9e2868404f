import GRDB
import HubCore
import NodeShell

/// A control log that cannot be used.
struct ControlLogError: Error, CustomStringConvertible {
    var description: String
}

/// The control log on disk (SPEC 8.5): one table of records, appended by one thread, each transaction durable before anybody hears of it.
///
/// WAL, because a commit is then one write and one fsync instead of three, and because backups and people with `sqlite3` read beside the
/// writer without holding it up. `synchronous = FULL` makes that one fsync part of every commit; with NORMAL a power cut could take back what
/// edges have been told.
final class ControlLog: Sendable {
    static let schema: Int64 = 1
    private let database: DatabaseQueue

    init(path: String) throws(ControlLogError) {
        var configuration = Configuration()
        configuration.journalMode = .wal
        configuration.prepareDatabase { try $0.execute(sql: "PRAGMA synchronous = FULL") }
        do {
            database = try DatabaseQueue(path: path, configuration: configuration)
            let found = try database.read { try Int64.fetchOne($0, sql: "PRAGMA user_version") ?? 0 }
            guard found <= Self.schema else {
                throw ControlLogError(
                    description: "'\(path)' has schema \(found), this program knows \(Self.schema); use a newer calib-hub")
            }
            if found == 0 {
                try database.write { database in
                    try database.execute(sql: "CREATE TABLE log (n INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT")
                    try database.execute(sql: "PRAGMA user_version = \(Self.schema)")
                }
            }
        } catch let error as ControlLogError { throw error } catch {
            throw ControlLogError(description: "cannot open '\(path)': \(error)")
        }
    }

    /// Every record in order.
    func replay(_ body: ([UInt8]) throws(LogDamage) -> Void) throws(ControlLogError) {
        do {
            try database.read { database in
                let rows = try String.fetchCursor(database, sql: "SELECT record FROM log ORDER BY n")
                while let record = try rows.next() { try body(Array(record.utf8)) }
            }
        } catch let damage as LogDamage {
            throw ControlLogError(description: "\(damage); restore a backup, or move the log away to begin a new one")
        } catch {
            throw ControlLogError(description: "the control log cannot be read: \(error)")
        }
    }

    /// One durable transaction. False: the disk is full, nothing is in the log, and it may be tried again.
    func append(_ records: [LogRecord]) throws(ControlLogError) -> Bool {
        do {
            try database.write { database in
                for record in records {
                    try database.execute(
                        sql: "INSERT INTO log (n, record) VALUES (?, ?)",
                        arguments: [record.number, String(decoding: record.bytes, as: UTF8.self)])
                }
            }
            return true
        } catch let error as DatabaseError where error.resultCode == .SQLITE_FULL {
            return false
        } catch {
            throw ControlLogError(description: "the control log cannot be written: \(error)")
        }
    }

    func close() { try? database.close() }
}
