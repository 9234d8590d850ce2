//! How a database is opened.

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To read and write.
    Write,
    /// To read, beside others that write; it makes no file.
    Read,
    /// To read a file that nobody writes to; it looks at no other file, and locks nothing.
    Still,
}
