//! `wasi:http/outgoing-handler` as wasmtime-wasi-http has it, but for one thing: the options that come with a request are
//! the host's from then on, and wasmtime-wasi-http 48 only looks at them. They would stay in the instance's table, one for
//! each request, until the instance has all the resources that it may have.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{RequestOptions, WasiHttpView};

use super::state::State;

const INTERFACE: &str = "wasi:http/outgoing-handler@0.2.12";

type Request = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Response = (Result<Resource<HostFutureIncomingResponse>, ErrorCode>,);

/// Takes the place of the function that is linked.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(INTERFACE)?.func_wrap("handle", handle)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn handle(mut store: StoreContextMut<'_, State>, (request, options): Request) -> wasmtime::Result<Response> {
    let mut http = store.data_mut().http();
    let lent = options.as_ref().map(|options| Resource::new_borrow(options.rep()));
    let response = http.handle(request, lent);
    if let Some(options) = options {
        http.table.delete(options)?;
    }
    match response {
        Ok(response) => Ok((Ok(response),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}
