#pragma once

// A disk that forgets what was not synced. Preloaded (LD_PRELOAD) into a program under test, it keeps, for the regular files below a directory,
// what a power loss would leave; `ForgetfulDisk` (TestSupport) applies that loss between kill -9 and the next start.
//
// Environment:
//   FORGETFUL_ROOT       Absolute path without symbolic links. Only one program at a time writes below it.
//   FORGETFUL_PLATTER    A directory on the same file system, outside the root, with:
//                          held/<inode>  a hard link to every file there was or is, so that a name that was lost can come back;
//                          data/<inode>  the bytes that are durable: what a sync copied here; none: the durable file is empty;
//                          journal       one record a line, in the order of the program's own calls, see below.
//   FORGETFUL_TAP        "1": also record what the program sends over TLS, before it is sent.
//   FORGETFUL_KILL_AT    n: kill -9 at the n-th point; points lie before and after every call that changes the disk, and at every TLS write.
//   FORGETFUL_FULL_AFTER n: after n bytes were written no space is left, until 32 writes have failed.
//   FORGETFUL_FAIL_SYNC  n: the n-th sync of a file fails with EIO, and as with Linux what it was to write is clean from then on: the next sync
//                        of the file succeeds without it.
//   FORGETFUL_CLOCK      A file of one native 64-bit number: so many nanoseconds the wall clock is ahead, at any time; may change meanwhile.
//   FORGETFUL_JOURNAL    Instead of root and platter: record what is sent into this file, and leave the disk alone.
//
// Journal, paths relative to the root:
//   create <inode> <path> | mkdir <path> | unlink <path> | rename <path>\t<path>     not durable before a `names` of the directory
//   names <path>          the directory was synced ("." is the root)
//   allnames              sync or syncfs: all directories
//   dirty <inode>         the file's bytes differ from its durable ones from here on
//   synced <inode> <length> <path>      the file's first `length` bytes are durable: written before the sync returns
//   failed <inode>        the sync failed
//   sent <connection> <n>\n<n bytes>\n  plaintext that the program handed to SSL_write_ex: written before the call returns
//   freed <connection>
//
// Nothing is really synced: the page cache outlives the program, and the test machine's disk is spared. A write and a sync of one program exclude each
// other, so a sync covers exactly what was written before it. What a mapping writes is not seen: SQLite's -shm files are left out, and removed by the
// power loss. Not interposed, because nothing of ours calls them on its files: link, truncate, sendfile, splice, io_uring, stdio.
