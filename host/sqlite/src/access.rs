//! How a database is opened.

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and write.
    Write,
    /// Read, beside others that write. It makes no file.
    Read,
    /// Read a file to which nobody writes. It looks at no other file, and locks nothing.
    Still,
}
