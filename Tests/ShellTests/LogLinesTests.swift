import Logging
import NodeShell
import Testing

struct LogLinesTests {
    @Test func fixedMembersComeFirstThenMetadataByKey_andNoNameTwice() {
        let line = LogLines.line(
            milliseconds: 1_700_000_000_123, level: .warning, message: "Hub link lost; \"spooling\".", label: "edge-node",
            metadata: ["b": "2", "a": ["x", "y"], "msg": "other", "c": ["k": "v"]])
        #expect(
            String(decoding: line, as: UTF8.self)
                == #"{"ts":1700000000123,"level":"warning","msg":"Hub link lost; \"spooling\".","logger":"edge-node","a":["x","y"],"b":"2","c":{"k":"v"}}"#
                + "\n")
    }
}
