//! What the record and the folders outlive.

/// What must not be forgotten by what: the choice of `[ledger] durability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every step is synced to the disk before it is acted on: nothing on record is lost in a power
    /// cut.
    #[default]
    PowerLoss,
    /// Steps are left to the system to be written: they outlive the end of this process, not that
    /// of the system. After a power cut the record may be older than what happened.
    ProcessCrash,
}
