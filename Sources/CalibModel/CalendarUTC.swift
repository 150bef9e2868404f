/// A day of the proleptic Gregorian calendar in UTC, and RFC 3339 text.
public struct CalendarDay: Sendable, Hashable, Comparable {
    /// Days since 1970-01-01.
    public var number: Int64
    package init(number: Int64) { self.number = number }
    package init(containing time: WallTime) {
        self.number = time.milliseconds.flooredDivision(by: 86_400_000)
    }
    public static func < (a: CalendarDay, b: CalendarDay) -> Bool { a.number < b.number }

    /// Year, month 1...12 and day 1...31 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
    package var civil: (year: Int, month: Int, day: Int) {
        let z = number + 719_468
        let era = z.flooredDivision(by: 146_097)
        let dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (Int(yearOfEra + era * 400 + (month <= 2 ? 1 : 0)), Int(month), Int(day))
    }

    /// Nil when the date does not exist (days_from_civil of the same source).
    package init?(year: Int, month: Int, day: Int) {
        guard (1...9999).contains(year), (1...12).contains(month), day >= 1 else { return nil }
        let isLeap = year.isMultiple(of: 4) && (!year.isMultiple(of: 100) || year.isMultiple(of: 400))
        let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        guard day <= lengths[month - 1] else { return nil }
        let y = Int64(month <= 2 ? year - 1 : year)
        let era = y.flooredDivision(by: 400)
        let yearOfEra = y - era * 400
        let dayOfYear = (153 * Int64(month > 2 ? month - 3 : month + 9) + 2) / 5 + Int64(day) - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        self.number = era * 146_097 + dayOfEra - 719_468
    }

    /// `YYYYMMDD`, as in feed file names.
    package var compactText: String {
        let (year, month, day) = civil
        return "\(padded(year, 4))\(padded(month, 2))\(padded(day, 2))"
    }

    /// Nil when the text is no such day.
    package init?(compactText text: some StringProtocol) {
        guard text.utf8.count == 8, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(text) else { return nil }
        self.init(year: number / 10_000, month: number / 100 % 100, day: number % 100)
    }
}

/// RFC 3339 instants in UTC.
package enum TimeText {
    /// `2025-01-01T00:00:00Z`; the fraction of a second is dropped.
    package static func seconds(_ milliseconds: Int64) -> String { dateAndTime(milliseconds) + "Z" }

    /// `2025-01-01T00:00:00.000Z`.
    package static func milliseconds(_ milliseconds: Int64) -> String {
        dateAndTime(milliseconds) + "." + padded(Int(milliseconds.flooredRemainder(by: 1000)), 3) + "Z"
    }

    /// `20250101_000000`, as in dataset and report names.
    package static func stamp(_ milliseconds: Int64) -> String {
        let text = dateAndTime(milliseconds)
        return text.filter { $0 != "-" && $0 != ":" }.replacing("T", with: "_")
    }

    /// Milliseconds since the epoch of an RFC 3339 instant, of `YYYY-MM-DD`, or of either without an offset (then UTC, `isNaive`).
    /// 0-9 fraction digits are accepted; what is below a millisecond is dropped. Nil when the text is no such instant.
    package static func parse(_ text: String) -> (milliseconds: Int64, isNaive: Bool)? {
        let bytes = Array(text.utf8)
        func digits(_ range: Range<Int>) -> Int? {
            guard range.upperBound <= bytes.count else { return nil }
            var value = 0
            for byte in bytes[range] {
                guard byte >= 48, byte <= 57 else { return nil }
                value = value * 10 + Int(byte - 48)
            }
            return value
        }
        func isByte(_ index: Int, _ characters: String) -> Bool { index < bytes.count && characters.utf8.contains(bytes[index]) }
        guard let year = digits(0..<4), isByte(4, "-"), let month = digits(5..<7), isByte(7, "-"), let dayOfMonth = digits(8..<10),
            let day = CalendarDay(year: year, month: month, day: dayOfMonth)
        else { return nil }
        let midnight = day.number * 86_400_000
        if bytes.count == 10 { return (midnight, true) }
        guard isByte(10, "Tt "), let hour = digits(11..<13), isByte(13, ":"), let minute = digits(14..<16), isByte(16, ":"),
            let second = digits(17..<19), hour < 24, minute < 60, second < 60
        else { return nil }
        var index = 19
        var fraction: Int64 = 0
        if isByte(index, ".") {
            index += 1
            let start = index
            while index < bytes.count, bytes[index] >= 48, bytes[index] <= 57 { index += 1 }
            guard index - start <= 9 else { return nil }
            for place in 0..<3 { fraction = fraction * 10 + (start + place < index ? Int64(bytes[start + place] - 48) : 0) }
        }
        let local = midnight + Int64(hour * 3600 + minute * 60 + second) * 1000 + fraction
        if index == bytes.count { return (local, true) }
        if isByte(index, "Zz"), index + 1 == bytes.count { return (local, false) }
        guard isByte(index, "+-"), let offsetHour = digits(index + 1..<index + 3), isByte(index + 3, ":"),
            let offsetMinute = digits(index + 4..<index + 6), index + 6 == bytes.count, offsetHour < 24, offsetMinute < 60
        else { return nil }
        let offset = Int64(offsetHour * 60 + offsetMinute) * 60_000
        return (isByte(index, "+") ? local - offset : local + offset, false)
    }

    private static func dateAndTime(_ milliseconds: Int64) -> String {
        let (year, month, day) = CalendarDay(number: milliseconds.flooredDivision(by: 86_400_000)).civil
        let second = Int(milliseconds.flooredRemainder(by: 86_400_000) / 1000)
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T"
            + "\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2))"
    }
}

private func padded(_ value: Int, _ width: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, width - text.count)) + text
}

extension Int64 {
    /// Division rounding towards minus infinity: the grid of SPEC 6.1 before 1970 too.
    @inlinable public func flooredDivision(by divisor: Int64) -> Int64 {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? quotient - 1 : quotient
    }
    /// What `flooredDivision` leaves: 0 ..< divisor.
    @inlinable public func flooredRemainder(by divisor: Int64) -> Int64 {
        let remainder = self % divisor
        return remainder < 0 ? remainder + divisor : remainder
    }
}
