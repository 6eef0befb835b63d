//! How patchdrop ends, in one place.

use std::process::ExitCode;

/// How a command ended. The numbers are a contract with scripts and service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for is done.
    Done = 0,
    /// patchdrop itself is at fault.
    Bug = 1,
    /// The command line makes no sense; nothing was done. (clap's number too.)
    Usage = 2,
    /// It ran to its end, and some files failed or are held, or a check found faults.
    SomeFailed = 3,
    /// Something outside is unavailable: a server, a folder, the ledger, a right; or another
    /// patchdrop is at work. (`EX_UNAVAILABLE` of sysexits.h.)
    Unavailable = 69,
    /// The configuration is at fault; nothing was touched. (`EX_CONFIG`.)
    Config = 78,
}

impl Exit {
    /// All of them, in order, each with its meaning in a few words.
    pub const ALL: [(Self, &str); 6] = [
        (Self::Done, "done"),
        (Self::Bug, "a bug in patchdrop"),
        (Self::Usage, "wrong usage, or no such file or route; nothing was done"),
        (Self::SomeFailed, "some files failed or are held, or a check found faults"),
        (
            Self::Unavailable,
            "something outside is unavailable: a server, a folder, the ledger, a right;\n      \
             or another patchdrop is at work on the same files",
        ),
        (Self::Config, "the config is at fault; nothing was touched"),
    ];

    /// The table for `--help`.
    #[must_use]
    pub fn table() -> String {
        let line = |(exit, meaning): &(Self, &str)| format!("  {:>2}  {meaning}\n", *exit as u8);
        format!("Exit codes:\n{}", Self::ALL.iter().map(line).collect::<String>())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
