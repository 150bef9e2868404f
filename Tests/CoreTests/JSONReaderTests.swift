import Foundation
import TestSupport
import Testing
import Wire

@Suite struct JSONReaderTests {
    private static func refusal(of text: [UInt8]) -> JSONError? {
        text.withUnsafeBytes { bytes in
            guard UTF8Check.isValid(bytes) else { return .syntax(at: 0) }
            var reader = JSONReader(bytes)
            do throws(JSONError) {
                try reader.skip()
                try reader.end()
                return nil
            } catch { return error }
        }
    }

    @Test(arguments: [
        "0", "-0", "1.5", "1e5", "1E-5", "1.0e+10", "\"\"", "\"\\u00e9\\n\\/\"", "true", "false", "null", "[]", "{}", " [1 , 2 ] ",
        "{\"a\":{\"b\":[null]}}", "\t1\r\n", "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    ])
    func jsonIsAccepted(_ text: String) { #expect(Self.refusal(of: Array(text.utf8)) == nil) }

    @Test(arguments: [
        "", " ", "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "--1", "tru", "True", "nul", "\"", "\"\\x\"", "\"\\u12g4\"", "\"a\nb\"",
        "[", "]", "[1,]", "[,1]", "[1 2]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}", "1 2", "[1]]",
        "'a'", "NaN", "Infinity", "-Infinity", "[1}", "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", "\u{feff}1", "\u{a0}1", "/**/1",
    ])
    func otherTextIsRefused(_ text: String) { #expect(Self.refusal(of: Array(text.utf8)) != nil) }

    /// Mutated JSON: never a trap, and the verdict is Foundation's, except where the two differ by design: depth above 16, numbers beyond
    /// a Double, `\u` escapes of unpaired surrogates, which we leave to whoever resolves the text, and a comma before a closing bracket,
    /// which Foundation lets pass.
    @Test func verdictIsFoundations_onMutatedText() {
        let corpus = [
            #"{"ts":1704067200000,"symbol":"BTCUSDT","side":"BUY","price":50000.0,"qty":0.1,"taker":false,"x":null}"#,
            #"[1,-2.5,3e2,"a\"b",true,{"k":[[],{}]},"é😀"]"#, #"{"a":{"b":{"c":[0,-0.0,1E+2]}},"d":"\t\\"}"#, " [ 1 , 2 ] ",
        ].map { Array($0.utf8) }
        let alphabet = Array("{}[]\":,.-+eE0123456789 \n\\tfnaru\u{1}é".utf8)
        var random = SeededRandom(seed: 1)
        var refused = 0
        for round in 0..<60_000 {
            var text = corpus[round % corpus.count]
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: text[place] = alphabet.randomElement(using: &random)!
                case 1: text.insert(alphabet.randomElement(using: &random)!, at: place)
                case 2: text.remove(at: place)
                default: text = Array(text[..<max(1, place)])
                }
                if text.isEmpty { text = [0x20] }
            }
            let ours = Self.refusal(of: text)
            if ours != nil { refused += 1 }
            if case .tooDeep = ours { continue }
            let string = String(decoding: text, as: UTF8.self)
            if string.contains("\\u") || string.contains(/,[ \n\t\r]*[\]}]/) || string.contains(/[eE][+]?[0-9]{3}/) { continue }
            let theirs = (try? JSONSerialization.jsonObject(with: Data(text), options: .fragmentsAllowed)) != nil
            #expect((ours == nil) == theirs, "\(string)")
        }
        #expect(refused > 20_000 && refused < 59_000)
    }

    @Test func nonFiniteWordsAreConsumedWhole() {
        let words = [
            ("NaN", true), ("Infinity", true), ("-Infinity", true), ("-NaN", false), ("Nan", false), ("Inf", false), ("-", false),
            ("", false),
        ]
        for (text, isWord) in words {
            let isConsumed = Array(text.utf8).withUnsafeBytes { bytes in
                var reader = JSONReader(bytes)
                return (try? reader.nonFinite()) != nil && (try? reader.end()) != nil
            }
            #expect(isConsumed == isWord, "\(text)")
        }
    }
}

@Suite struct DecimalTextTests {
    private static func fixed(_ text: String, places: Int) -> Int64? {
        Array(text.utf8).withUnsafeBytes { DecimalText($0)?.fixed(places: places) }
    }

    /// Arithmetic on digit strings: nothing shared with the parser under test.
    private static func oracle(_ text: String, places: Int) -> Int64? {
        let isNegative = text.hasPrefix("-")
        let parts = text.drop { $0 == "-" }.lowercased().split(separator: "e")
        let power = parts.count > 1 ? Int(parts[1])! : 0
        let decimals = parts[0].split(separator: ".")
        var digits = decimals[0].map { Int(String($0))! } + (decimals.count > 1 ? decimals[1].map { Int(String($0))! } : [])
        let point = decimals[0].count + power + places  // How many of the digits are whole units.
        if point < 0 { digits = Array(repeating: 0, count: -point) + digits }
        let cut = max(0, point)
        while digits.count < cut { digits.append(0) }
        var whole = Array(digits[..<cut])
        let rest = Array(digits[cut...])
        let first = rest.first ?? 0
        let isAboveHalf = first > 5 || (first == 5 && rest.dropFirst().contains { $0 > 0 })
        if isAboveHalf || (first == 5 && !(whole.last ?? 0).isMultiple(of: 2)) {
            var index = whole.count - 1
            while index >= 0, whole[index] == 9 {
                whole[index] = 0
                index -= 1
            }
            if index >= 0 { whole[index] += 1 } else { whole.insert(1, at: 0) }
        }
        let trimmed = whole.drop { $0 == 0 }.map(String.init).joined()
        guard !trimmed.isEmpty else { return 0 }
        guard let value = Int64((isNegative ? "-" : "") + trimmed), value != .min else { return nil }
        return value
    }

    @Test(
        arguments: [
            ("0.5", 0, 0), ("1.5", 0, 2), ("2.5", 0, 2), ("-2.5", 0, -2), ("-3.5", 0, -4), ("2.50000000000000000000000001", 0, 3),
            ("0.0000000005", 9, 0), ("0.0000000015", 9, 2), ("61659.7", 9, 61_659_700_000_000), ("1e3", 0, 1000), ("1.5e-1", 1, 2),
            ("-0", 3, 0),
            ("1E2", 2, 10_000), ("0.00000000050000000000000000000000001", 9, 1),
        ] as [(String, Int, Int64)])
    func roundsHalfToEven(_ text: String, places: Int, expected: Int64) {
        #expect(Self.fixed(text, places: places) == expected)
        #expect(Self.oracle(text, places: places) == expected)
    }

    @Test func equalsDigitArithmetic_forRandomDecimals() {
        var random = SeededRandom(seed: 7)
        for _ in 0..<60_000 {
            func run(_ count: Int) -> String { String((0..<count).map { _ in "0055999123".randomElement(using: &random)! }) }
            let head = run(Int.random(in: 1...14, using: &random)).drop { $0 == "0" }
            var text = (Bool.random(using: &random) ? "-" : "") + (head.isEmpty ? "0" : String(head))
            if Bool.random(using: &random) { text += "." + run(Int.random(in: 1...25, using: &random)) }
            if Int.random(in: 0..<4, using: &random) == 0 { text += "e\(Int.random(in: -25...12, using: &random))" }
            let places = Int.random(in: 0...9, using: &random)
            #expect(Self.fixed(text, places: places) == Self.oracle(text, places: places), "\(text) at \(places)")
        }
    }
}
