/// Every bound of the product in one place, each with the sum that chose it (SPEC 1.7).
package enum Limits {
    /// Symbols one edge quotes. 500 symbols x 20 updates/s is the largest fleet we promise a quote path for.
    package static let symbolsMax = 500
    /// Price levels kept on one side of a book. A snapshot brings 1,000 (futures) or 5,000 (spot) and diffs add levels further out;
    /// 16,384 levels of 16 bytes are 256 KiB a side, of which only what is used is touched. At the bound the level farthest from the touch is
    /// forgotten and counted.
    package static let bookLevelsMax = 16_384
    /// Ticks around the touch whose quantities are found by index, three quarters of them behind it: 94.6 % of the updates of BTCUSDT perpetual
    /// are within them, 90.2 % within half as many, 95.4 % within twice as many. 8 bytes a tick are 128 KiB a side, 128 MB for 500 symbols.
    package static let bookWindowTicks = 16_384
    /// Price levels in one frame: the largest REST snapshot has 5,000 a side. A frame with more is rejected.
    package static let frameLevelsMax = 16_384
    /// Trades in one frame: what Bybit documents. A frame with more is rejected.
    package static let frameTradesMax = 1_024
    /// A book without a chain asks again for its subscription this often, while its frames keep coming: 25 times a round trip to a far venue.
    package static let resubscribeNanoseconds: Int64 = 5_000_000_000
    /// Books that never came, asked for again at once: two requests each, 40 in 5 s; Bybit takes 500.
    package static let resubscriptionsMax = 20
    /// Connections told apart in one recording; a reconnect under its old name is none more. Lines of any further one are bad lines.
    package static let recordingConnectionsMax = 64
    /// Highest price in 1e-9 quote currency, and highest quantity of one level or trade in 1e-8 base asset: a sixteenth of an Int64, so that
    /// twice a price and the sum of the best five levels fit. A price of 576 million, a quantity of 5.7e9.
    package static let decimalMax: Int64 = .max / 16
    /// Depth diffs kept while a snapshot is on its way: 100 s at 10/s. At the bound the oldest is forgotten; the sync rules notice.
    package static let bufferedDiffsMax = 1_000
    /// Recent bookTickers kept to be compared with the book: 1.6 s at the busiest second recorded (2,527 messages).
    package static let auditTickersMax = 4_096
    /// Recent depth events waiting for their bookTicker: 25 s at 40/s.
    package static let auditDepthsMax = 1_024
    /// Orders of one side whose placement or cancellation is still under way: 8 x order latency of quoting at every tick.
    package static let ordersInFlightMax = 8
    /// Fills of one symbol waiting for their 30-s markout: 136 fills a second. At the bound the oldest is completed with nulls.
    package static let pendingMarkoutsMax = 4_096
    /// Seconds stepped one by one after a silence; a longer one is a discontinuity and restarts the one-second grid.
    package static let silenceSecondsMax = 120
    /// Arm fields a symbol has left and still books to within one 10-s window: there and back of an experiment, and the same for the one
    /// before it. At the bound the oldest is cut early, so its window has two rows.
    package static let trailingAccumulatorsMax = 4
    /// One JSONL row (SPEC 8.1).
    package static let rowBytesMax = 65_536
    /// How much of a feed's end is validated row by row on open (SPEC 2.7).
    package static let repairTailBytes = 2 << 20
    /// Bytes appended to one feed before it is synced at the latest (SPEC 2.7).
    package static let unsyncedBytesMax = 1 << 20
    /// Gaps listed one by one in a replay's summary; all are counted.
    package static let gapsListedMax = 100
    /// One control message of the link, its newline included (SPEC 8.1): a hello with 500 symbol names is 10 KiB.
    package static let controlLineBytesMax = 65_536
    /// Combining marks in a row in a string of a control message: what Unicode calls stream-safe (UAX 15); no language comes near.
    package static let combiningMarksMax = 30
    /// Raw bytes behind one `append` or `chunk` (SPEC 8.1).
    package static let appendBytesMax = 1 << 20
    /// Bytes of one `append` an edge sends in a turn, so that nothing urgent waits behind it (SPEC 8.3).
    package static let appendTurnBytes = 65_536
    /// Files whose place is asked for at once: 16 x 64 MiB to compare, one after the other; the backlog's others wait behind today's.
    package static let resumesInFlightMax = 16
    /// Symbols in one `status` message: 500 bytes each stay below a control line.
    package static let statusSymbolsMax = 100
    /// Appended bytes of one connection the hub has not synced yet: beyond it the hub stops reading from that connection.
    package static let unackedBytesMax = 4 << 20
    /// Deadline of the TLS handshake and of the hello behind it, and how long a silent connection lives (SPEC 8.7).
    package static let helloNanoseconds: Int64 = 5_000_000_000
    package static let idleNanoseconds: Int64 = 30_000_000_000
    /// A ping is sent after this long without a message.
    package static let pingNanoseconds: Int64 = 5_000_000_000
    /// An edge on B asks again this often; the grant outlives two lost answers (SPEC 7.7).
    package static let leaseRenewalNanoseconds: Int64 = 5_000_000_000
    package static let leaseNanoseconds: Int64 = 15_000_000_000
    /// An edge whose wall clock is further than this off the hub's plays A (SPEC 7.5): blocks begin at times of the clock.
    package static let clockErrorMillisecondsMax: Int64 = 250
    /// Reconnect: full-jitter back-off between these; a lease holder's is capped at the lower maximum (SPEC 7.7).
    package static let reconnectNanosecondsMin: Int64 = 200_000_000
    package static let reconnectNanosecondsMax: Int64 = 30_000_000_000
    package static let reconnectNanosecondsMaxOnB: Int64 = 3_000_000_000
    /// One websocket message, its fragments joined: the longest frame recorded has 64,067 bytes; equal to the longest line a replay reads.
    package static let webSocketMessageBytesMax = 16 << 20
    /// One message of a client to the venue of the laboratory: 500 topics of 30 bytes, four times.
    package static let clientMessageBytesMax = 65_536
    /// Clients of that venue: an edge has two connections at most.
    package static let venueClientsMax = 256
    /// Bytes a client of it may leave unread: 19 s of all topics of four symbols (222 KB/s). It is dropped then, as a venue drops a slow reader.
    package static let venueClientBytesMax = 4 << 20
    /// How long the end of a replay waits for a client to read what was sent.
    package static let venueGoodbyeNanoseconds: Int64 = 60_000_000_000
    /// One body of an HTTP answer: a list of a venue's instruments has 1.5 MiB.
    package static let httpBodyBytesMax = 16 << 20
    /// Request or status line and headers of one HTTP message: four times what browsers and venues send.
    package static let httpHeadBytesMax = 32_768
    package static let httpHeadersMax = 100
    /// The body of a request to our own endpoints, which is read and ignored.
    package static let endpointBodyBytesMax = 4_096
    /// Connections to one of our own HTTP endpoints at a time: a scraper and a probe each hold one.
    package static let endpointConnectionsMax = 64
    /// Deadlines of an outgoing connection: until it is open (TCP, TLS and handshake each), and of a whole HTTP exchange.
    package static let connectNanoseconds: Int64 = 5_000_000_000
    package static let httpExchangeNanoseconds: Int64 = 15_000_000_000
    /// How long a websocket waits for the peer's half of a close.
    package static let closeNanoseconds: Int64 = 2_000_000_000
    /// Connections that have not said hello yet: 1,000 edges that come back within a minute need 17 a second, most done in 50 ms; 64 leave
    /// room for the 5 s of those that never will. One more is closed at once.
    package static let strangersMax = 64
    /// Bytes queued for a peer that does not read them: eight messages with the longest payload. At the bound the connection is closed.
    package static let linkOutboundBytesMax = 8 << 20
    /// Queued bytes above which a link is not writable, and below which it is again: one longest payload, and two hub turns.
    package static let linkOutboundBytesHigh = 1 << 20
    package static let linkOutboundBytesLow = 256 << 10
    /// How long a closed connection may take to hand its last bytes over and to see the peer's end.
    package static let lingerNanoseconds: Int64 = 1_000_000_000
    /// Received ciphertext given to the TLS library at a time: its largest record (16 KiB and 256 bytes) twice.
    package static let tlsFeedBytes = 32 << 10
    /// Plaintext of one TLS record.
    package static let tlsRecordBytes = 16_384
    /// Records sent under one key: AES-GCM allows 2^24.5.
    package static let tlsRecordsPerKey = 1 << 23
    /// Handshake messages behind the handshake per MiB of data: a venue sends two tickets, a key update comes every 128 GiB.
    package static let tlsPostHandshakeMessagesMax = 32
    /// Sockets waiting to be accepted.
    package static let acceptBacklog: Int32 = 256
    /// Connections of one hub: 1,000 edges and 24 operators at 34 KiB of TLS buffers each are 34 MiB.
    package static let linksMax = 1_024
    /// Hosts a hub knows: the connections, and as many it has once seen.
    package static let hostsMax = 2_048
    /// Feed files of one host: six feeds over 680 days. Beyond it a new file is refused.
    package static let hostFilesMax = 4_096
    /// A second connection of a live identity waits this long for the first one's pong (SPEC 8.4).
    package static let identityPingNanoseconds: Int64 = 1_000_000_000
    /// Added to a lease before an unreachable edge is called safe (SPEC 7.7): its clock and ours may drift apart by far less in 15 s.
    package static let leaseGraceNanoseconds: Int64 = 1_000_000_000
    /// A host, or a gauge of it, silent this long is lost (SPEC 5: `metrics.symbol_ttl`).
    package static let lostNanoseconds: Int64 = 900_000_000_000
    /// A connected host without a status this long is silent: ten statuses missed.
    package static let silentNanoseconds: Int64 = 10_000_000_000
    /// Actions of operators waiting for a record to become durable: a commit takes milliseconds. Beyond it an action is refused.
    package static let deferredRequestsMax = 64
    /// Operators waiting for hosts to answer a command, each at most `commandWaitMillisecondsMax`.
    package static let commandWaitersMax = 64
    package static let commandWaitMilliseconds: Int64 = 10_000
    package static let commandWaitMillisecondsMax: Int64 = 600_000
    /// Finished commands and experiments a hub keeps in memory and lists; the log keeps all.
    package static let commandsListedMax = 1_000
    package static let experimentsListedMax = 1_000
    /// UTF-8 bytes of an operator's reason: it travels in every command.
    package static let reasonBytesMax = 512
    /// Keys that operators may order for a host over its configuration: more than there are that may change while it runs (60).
    package static let orderedParametersMax = 100
    /// The edge looks at its kill file and lets time pass for its orders this often: a tenth of what a person notices, 100 look-ups a second.
    package static let edgeTurnNanoseconds: Int64 = 10_000_000
    /// A venue connection without a frame is asked for a sign of life after the first, at most each second of these (SPEC 3.2), and given up
    /// after the third: 40 pings without an answer.
    package static let freshnessPingNanoseconds: Int64 = 100_000_000
    package static let freshnessPingIntervalNanoseconds: Int64 = 250_000_000
    package static let venueSilenceNanoseconds: Int64 = 10_000_000_000
    /// The first reconnect to a venue comes within this, while nothing is quoted: a quarter of the hub's, as an edge has a handful of sockets and
    /// a venue is made for thousands. Each failure doubles it: some 30 attempts in the first minute, where Binance allows 60.
    package static let venueReconnectNanosecondsMin: Int64 = 50_000_000
    /// A venue reconnect waits at most this long.
    package static let venueReconnectNanosecondsMax: Int64 = 5_000_000_000
    /// On shutdown: how long feeds already durable may take to the hub. What is left goes with the next start.
    package static let shipOnStopNanoseconds: Int64 = 2_000_000_000
    /// On shutdown: how long cancels may take before the feeds are closed without them.
    package static let cancelOnStopNanoseconds: Int64 = 500_000_000

    // MARK: Metrics

    /// Places in one file at which the age of unacknowledged bytes is known: two minutes by the second, then half as often each time it is full, so
    /// that after a week of 600,000 s the age is known to 2.6 h.
    package static let waitingMarksMax = 128
    /// Commands of the hub that wait for their result, of which the time is taken; the oldest is forgotten beyond it.
    package static let timedCommandsMax = 256
    /// A body from this size on is compressed for whoever accepts it: below it the saving is less than a packet.
    package static let compressedBodyBytesMin = 1_400

    // MARK: Feeds

    /// Rows of ticks a second that every symbol brings into the host's budget: one for each of the four kinds, kept for it, and as many to share.
    package static let tickRowsPerSymbolMin: Int64 = 8

    // MARK: Binance
    /// Between two questions for one symbol's order book, after ones that led nowhere: nothing is quoted meanwhile, and the weight of the next
    /// question is there again after 3 s.
    package static let snapshotBackOffNanosecondsMax: Int64 = 5_000_000_000
    /// A book that was crossed within this time of its snapshot says that snapshots are no good just now: the next question waits as after a failure.
    package static let snapshotTrustNanoseconds: Int64 = 30_000_000_000
    /// Between two questions for a book that reaches further: a tenth of the weight of one symbol's share (24 a minute on USD-M).
    package static let widerBookNanoseconds: Int64 = 20_000_000_000
    /// How long a venue may close its REST interface for us: Binance bans an address for at most three days.
    package static let venuePauseNanosecondsMax: Int64 = 259_200_000_000_000
    /// What a contract of an inverse future is worth at most, in the quote currency: ten times the largest (COIN-M's BTC has 100), with which a
    /// position of 1e9 contracts, in 1e-24 doubled, stays a fifth of an Int128.
    package static let contractMultiplierMax: Int64 = 1_000
    /// What a recorder keeps for a disk that is slow: ten minutes of the busiest recording (100 KB/s) of one symbol.
    package static let recordQueueBytesMax = 64 << 20
    /// Between two looks at a venue's list of instruments: changes are announced days before.
    package static let instrumentRefreshNanoseconds: Int64 = 3_600_000_000_000

    // MARK: Market-data cache
    /// A tick waits this long for the refresh of its book (SPEC 3.3): a third of the tick's deadline.
    package static let refreshWaitNanoseconds: Int64 = 50_000_000
    /// A refresh without an answer has failed after this: longer than any answer worth having, because nothing older is served anyway.
    package static let refreshNanosecondsMax: Int64 = 2_000_000_000
    /// Pause after a failed refresh: the first bound, doubled by each failure up to the second.
    package static let refreshBackOffNanosecondsMin: Int64 = 250_000_000
    package static let refreshBackOffNanosecondsMax: Int64 = 5_000_000_000
    /// Pings without an answer: 16 s of four a second, more than a connection is kept without an answer.
    package static let pingsInFlightMax = 64
    /// A ping at least this often: Bybit closes a connection that says nothing for 20 s.
    package static let heartbeatNanoseconds: Int64 = 15_000_000_000
    /// A connection that answers no ping and sends nothing for this long is given up: a lost packet is sent again within 200 ms, then 400 ms
    /// and 800 ms, so that three losses in a row are still waited for.
    package static let unansweredNanosecondsMax: Int64 = 2_500_000_000
}

// MARK: Paper exchange

extension Limits {
    /// What `--explain-order` lists of one order: an order that rests a whole day at 1 change of its level a second.
    package static let storyEntriesMax = 86_400
}

// MARK: Performance gate

extension Limits {
    /// Runs of a timed workload below which a bootstrap says little: of 5 values one in 625 resamples
    /// repeats a single one, of 4 one in 64, which is more than the 1 % the interval leaves out at either end.
    package static let perfTimedRunsMin = 5
    /// Runs and stages of one file of figures: 10,000 draws of 2 x 200 runs for 64 stages are 256 million, a second or two.
    package static let perfRunsMax = 200
    package static let perfStagesMax = 64
    /// One file of figures: 200 runs of 64 stages at 100 bytes are 1.3 MB.
    package static let perfFileBytesMax = 4 << 20
}

// MARK: Feeds on disk

extension Limits {
    /// Bytes of one feed kept in memory while its file cannot be written; six feeds are 96 MiB. Ticks at the promised load (1,000 rows of 500 bytes
    /// a second) fill it in 33 s, 100 fills a second in 5 min. Beyond it records stay in their ring, and the ring's rule holds (SPEC 2.7).
    package static let feedBufferBytesMax = 16 << 20
    /// A file that cannot be written is tried again after the first, twice as late each time, at most after the second: a disk that heals is
    /// noticed within a second, and a broken one costs one system call a second and feed.
    package static let diskRetryNanosecondsMin: Int64 = 50_000_000
    package static let diskRetryNanosecondsMax: Int64 = 1_000_000_000
    /// On shutdown: how long a disk that takes no rows is tried.
    package static let diskOnStopNanoseconds: Int64 = 2_000_000_000
    /// How long after midnight an idle feed's file is completed: twice what the records' clock may differ from the system's (1 s).
    package static let sealGraceNanoseconds: Int64 = 2_000_000_000
    /// How often files are looked at for removal: a minute at the rate of `Parameters.tickRowsPerSecondMax` is 300 MB.
    package static let retentionNanoseconds: Int64 = 60_000_000_000
    /// Bytes read at a time of a file that is being sealed.
    package static let sealChunkBytes = 1 << 20
}

// MARK: Experiments

extension Limits {
    /// Pairs of blocks of one experiment: four weeks of ten minutes each. Rows of later ones are not compared, and a row stamped far ahead
    /// ends no more pairs than these.
    package static let experimentPairsMax: Int32 = 4_032
    /// Changes of one experiment kept in memory and shown; each decision's evidence is some 3 KB.
    package static let experimentChangesListedMax = 64
    /// From an experiment's start to its T0 at least: edges hear of it and hold their leases by then.
    package static let experimentLeadMilliseconds: Int64 = 10_000
}

// MARK: Replication

extension Limits {
    /// Files of one round that are synced one by one; more than that are synced by one `syncfs`, which covers names, too. Measured with 8 KiB
    /// appended to each file (ext4, virtio; median ms, one by one / syncfs): 1 file 0.22 / 0.25, 4 files 1.0 / 0.42, 8 files 2.1 / 0.51,
    /// 20 files 3.8 / 0.63, 100 files 29 / 2.7, 500 files 126 / 11. A syncfs also waits for what others write to the same disk, so that two files,
    /// about as fast either way, are left out of it.
    package static let syncEachFilesMax = 2
    /// Files a hub keeps open between rounds: six feeds of 1,000 edges, and as many of yesterday as come late.
    package static let hubOpenFilesMax = 8_192
    /// Files of which a hub remembers length and checksums, open or not: 1 KB each. To find that out again the end of a file is read and synced.
    package static let hubKnownFilesMax = 16_384
    /// Rounds that sync begin no closer together: at most 500 syncs a second, however little each brings. 1,000 edges bring 2,500 messages a second; a
    /// sync for each, at 0.3 ms of processor time, would take most of a core; so five share one. It adds 1 ms to an acknowledgement on average.
    package static let commitSpacingNanoseconds: Int64 = 2_000_000
    /// Of a fleet's rounds, in which more files than these are written: half as many syncs, for 1 ms more.
    package static let commitFewFilesMax = 4
    package static let commitSpacingManyNanoseconds: Int64 = 4_000_000
    /// One checksum of a feed file is over so many bytes (SPEC 8.2).
    package static let resumeBlockBytes = 1 << 20
    /// Checksums in one answer to `resume`: 64 MiB of the file are read and compared at a time, which takes the edge 50 ms; 11 bytes each.
    package static let resumePageBlocks = 64
    /// Accepted and unsynced bytes of all connections of one hub: four connections at their own bound; memory does not grow with the edges. Beyond
    /// it the hub reads from nobody until half of it is synced; each connection may bring one more frame that it was reading.
    package static let hubPoolBytes = 16 << 20
    /// A file that could not be stored is tried again after this long.
    package static let hubDiskRetryNanoseconds: Int64 = 1_000_000_000
    /// A feed file that the edge could not read is tried again after this long.
    package static let edgeReadRetryNanoseconds: Int64 = 5_000_000_000
    /// Files that were removed while no hub could be told, to tell it of: more than a day's retention removes, were the hub away for half a year.
    package static let goneFilesMax = 1_024
    /// A hub looks at so many bytes of rows a second as views would, at most: 100,000 rows of 400 bytes cost a twentieth of a core. Rows of a fleet
    /// that catches up faster than that are counted as not looked at; whoever builds a view looks at all of them.
    package static let rowCheckBytesPerSecond = 40_000_000
    /// What is saved up for a round, above the largest append of a connection's turn at 64 connections.
    package static let rowCheckBytesMax = 8 << 20
    /// Rows no view takes, of which a hub remembers where they are: the newest of each host.
    package static let rejectedRowsListedMax = 100
    /// Parts of one feed file: a disk that is restored every hour of its day has 24.
    package static let filePartsMax = 1_000
}
