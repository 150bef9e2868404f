/// One connection, as the cores know it.
package struct LinkID: Hashable, Sendable, Comparable {
    package var number: Int
    package init(_ number: Int) { self.number = number }
    package static func < (a: LinkID, b: LinkID) -> Bool { a.number < b.number }
}

/// Who a connection's certificate says it is (SPEC 8.4).
package struct Peer: Sendable, Equatable {
    package enum Role: String, Sendable { case edge, `operator`, viewer }
    package var role: Role
    package var name: String
    package init(role: Role, name: String) {
        self.role = role
        self.name = name
    }
    /// `operator/alice`: what commands and records name.
    package var identity: String { "\(role.rawValue)/\(name)" }
}

/// Names that come from peers and become parts of paths and metrics.
package enum HostName {
    /// Letters, digits, '.', '_' and '-', 1 to 64, not starting with a dot.
    package static func isValid(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count) && text.utf8.first != 46
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    /// 16 lower-case hex digits.
    package static func isEpoch(_ text: String) -> Bool {
        text.utf8.count == 16 && text.utf8.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
    }
}
