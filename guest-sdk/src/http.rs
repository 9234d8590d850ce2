//! Makes an HTTP request with `wasi:http` (feature `http`). The operator grants what it may reach.

mod post;
mod response;
mod url;

pub use post::{post, post_and_read};
pub use response::{NotFound, Response};
pub use url::Url;
