//! One HTTP request, in terms of `wasi:http` (feature `http`). What it may reach is the operator's to grant.

mod post;
mod response;
mod url;

pub use post::post;
pub use response::{NotFound, Response};
pub use url::Url;
