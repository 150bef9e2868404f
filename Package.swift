// swift-tools-version: 6.2
import PackageDescription

// Nothing here is a library for others: what crosses a target is `package`, except the few leaf types of the hot
// path that are `public` and `@inlinable` (README, Decisions: the optimiser does not inline `package` bodies).
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

// `deploy/test --full` sets this: the thread sanitizer on what has threads. The whole package cannot be built with it: Swift 6.3.1 rejects,
// or crashes on, its instrumentation of `inout` parts of non-copyable structs in EdgeCore, which has no threads, and of coroutines in ShellTests
// when they are optimised; their own code is not what is looked at.
let checksThreads = Context.environment["CALIBRANT_CHECK_THREADS"] != nil
let threaded: [SwiftSetting] = strict + (checksThreads ? [.unsafeFlags(["-sanitize=thread"])] : [])
let threadedLink: [LinkerSetting] = checksThreads ? [.unsafeFlags(["-sanitize=thread"])] : []

let package = Package(
    name: "calibrant",
    products: [
        .executable(name: "edge-node", targets: ["edge-node"]),
        .executable(name: "edge-node-lab", targets: ["edge-node-lab"]),
        .executable(name: "calib-hub", targets: ["calib-hub"]),
        .executable(name: "hubctl", targets: ["hubctl"]),
        .executable(name: "calib-lab", targets: ["calib-lab"]),
        // Preloaded by tests into the programs they kill.
        .library(name: "CForgetfulDisk", type: .dynamic, targets: ["CForgetfulDisk"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // System libraries.
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CLinux"),
        // Takes the place of malloc in whatever links it: the laboratory alone.
        .target(name: "CAllocationCount", cSettings: checksThreads ? [.define("CALIBRANT_CHECK_THREADS")] : []),

        // Cores: pure, deterministic.
        .target(name: "CCRC32C"),
        .target(name: "CalibModel", dependencies: ["CCRC32C"], swiftSettings: strict),
        .target(name: "Wire", dependencies: ["CalibModel"], swiftSettings: strict),
        .target(name: "EdgeCore", dependencies: ["CalibModel", "Wire"], swiftSettings: strict),
        .target(name: "HubCore", dependencies: ["CalibModel", "Wire"], swiftSettings: strict),
        .target(
            name: "Simulation", dependencies: ["CalibModel", "Wire", "EdgeCore", "HubCore"], swiftSettings: strict),

        // Shells.
        .target(
            name: "NodeShell",
            dependencies: [
                "CalibModel", "Wire", "COpenSSL", "CZlib", "CZstd",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: threaded, linkerSettings: threadedLink),
        // Datasets from feed files, for the programs that build them.
        .target(name: "DatasetFiles", dependencies: ["CalibModel", "Wire", "HubCore", "NodeShell"], swiftSettings: strict),
        .target(name: "Configuration", dependencies: ["CalibModel", "Wire", "Yams"], swiftSettings: strict),
        .target(
            name: "EdgeShell",
            dependencies: [
                "CalibModel", "Wire", "EdgeCore", "NodeShell", "Configuration", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: threaded),
        .executableTarget(
            name: "edge-node", dependencies: ["EdgeShell", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: threaded),
        // Never installed.
        .executableTarget(
            name: "edge-node-lab",
            dependencies: [
                "CalibModel", "EdgeCore", "EdgeShell", "NodeShell",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: threaded),
        .executableTarget(
            name: "calib-hub",
            dependencies: [
                "CalibModel", "Wire", "HubCore", "NodeShell", "DatasetFiles", "Configuration",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: threaded),
        .executableTarget(
            name: "hubctl",
            dependencies: [
                "CalibModel", "Wire", "HubCore", "NodeShell", "DatasetFiles", "Configuration", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),
        .executableTarget(
            name: "calib-lab",
            dependencies: [
                "CalibModel", "Wire", "EdgeCore", "HubCore", "Simulation", "NodeShell", "DatasetFiles", "CAllocationCount", "CLinux",
                "COpenSSL",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
            ], swiftSettings: strict),

        // Tests.
        .target(name: "CForgetfulDisk", path: "Tests/ForgetfulDisk"),
        .target(name: "TestSupport", dependencies: ["CalibModel", "Wire"], path: "Tests/TestSupport", swiftSettings: strict),
        .testTarget(
            name: "CoreTests", dependencies: ["CalibModel", "Wire", "EdgeCore", "HubCore", "Simulation", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "SimulationTests", dependencies: ["EdgeCore", "HubCore", "Wire", "Simulation", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "ShellTests",
            dependencies: [
                "NodeShell", "EdgeCore", "TestSupport", "COpenSSL",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
            ], swiftSettings: strict + (checksThreads ? [.unsafeFlags(["-Onone"])] : [])),
        .testTarget(
            name: "EndToEndTests",
            dependencies: [
                "CalibModel", "Wire", "NodeShell", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),
    ]
)
