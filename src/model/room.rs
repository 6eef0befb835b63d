//! How much room a volume has.

/// What is left on a volume for this account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// The volume's size, bytes.
    pub total_bytes: u64,
    /// Files that can still be made, where the volume counts them.
    pub free_files: Option<u64>,
}
