//! Replaces some functions of wasmtime-wasi-http's `wasi:http`, for three reasons. First, the options of a request
//! belong to the host once it is sent, but wasmtime-wasi-http 48 leaves them in the instance's table, one for each
//! request, until the instance has reached its limit of resources. Second, it logs a warning for each incomplete
//! request, as often as the guest likes. Third, what a guest makes the host hold has to be counted first: see
//! `held.rs`.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host;
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, HeaderError, HostFields, HostFutureIncomingResponse as Future, HostOutgoingBody as _,
    HostOutgoingRequest as _, Method, Scheme,
};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpView};

use super::host_memory;
use super::state::State;

const HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";
const TYPES: &str = "wasi:http/types@0.2.12";

/// The most bytes of trailers, which no account counts.
const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// Replaces the functions that are already linked.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(HANDLER)?.func_wrap("handle", handle)?;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap("[static]fields.from-list", fields_from_list)?;
    types.func_wrap("[method]fields.set", set_field)?;
    types.func_wrap("[method]fields.append", append_field)?;
    types.func_wrap("[method]fields.clone", clone_fields)?;
    add_setters_to_linker(&mut types)?;
    types.func_wrap("[static]outgoing-body.finish", finish_body)?;
    types.func_wrap("[method]future-incoming-response.get", get_response)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Store<'a> = StoreContextMut<'a, State>;
type Request = Resource<HostOutgoingRequest>;
type Fields = Resource<FieldMap>;
type Response = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;
type HeaderAnswer<T> = wasmtime::Result<(Result<T, HeaderError>,)>;
type Set = wasmtime::Result<(Result<(), ()>,)>;

fn handle(
    mut store: Store<'_>,
    (request, options): (Request, Option<Resource<RequestOptions>>),
) -> wasmtime::Result<(Result<Resource<HostFutureIncomingResponse>, ErrorCode>,)> {
    let counts = store.data().gate.counts();
    let mut http = store.data_mut().http();
    http.table.get_mut(&request)?.path_with_query.get_or_insert_with(|| "/".to_owned());
    if !counts {
        http.table.delete(request)?;
        options.map(|options| http.table.delete(options)).transpose()?;
        return Ok((Err(ErrorCode::HttpRequestDenied),));
    }
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

fn fields_from_list(mut store: Store<'_>, (entries,): (Vec<(String, Vec<u8>)>,)) -> HeaderAnswer<Fields> {
    let bytes = entries.iter().map(|(name, value)| host_memory::header(name, value)).sum();
    store.data_mut().hold(bytes)?;
    let fields = HostFields::from_list(&mut store.data_mut().http(), entries);
    fields.map_or_else(|error| Ok((Err(error.downcast()?),)), |fields| Ok((Ok(fields),)))
}

fn set_field(mut store: Store<'_>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)) -> HeaderAnswer<()> {
    store.data_mut().hold(values.iter().map(|value| host_memory::header(&name, value)).sum())?;
    let set = HostFields::set(&mut store.data_mut().http(), fields, name, values);
    set.map_or_else(|error| Ok((Err(error.downcast()?),)), |()| Ok((Ok(()),)))
}

fn append_field(mut store: Store<'_>, (fields, name, value): (Fields, String, Vec<u8>)) -> HeaderAnswer<()> {
    store.data_mut().hold(host_memory::header(&name, &value))?;
    let appended = HostFields::append(&mut store.data_mut().http(), fields, name, value);
    appended.map_or_else(|error| Ok((Err(error.downcast()?),)), |()| Ok((Ok(()),)))
}

/// Copies fields. A copy shares its memory with the original until one of them is changed.
fn clone_fields(mut store: Store<'_>, (fields,): (Fields,)) -> wasmtime::Result<(Fields,)> {
    let bytes = host_memory::headers(store.data_mut().table().get(&fields)?);
    store.data_mut().hold(bytes)?;
    Ok((HostFields::clone(&mut store.data_mut().http(), fields)?,))
}

fn add_setters_to_linker(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    let set_method = |mut store: Store<'_>, (request, method): (Request, Method)| -> Set {
        store.data_mut().hold(host_memory::method(&method))?;
        Ok((store.data_mut().http().set_method(request, method)?,))
    };
    let set_scheme = |mut store: Store<'_>, (request, scheme): (Request, Option<Scheme>)| -> Set {
        store.data_mut().hold(host_memory::scheme(scheme.as_ref()))?;
        Ok((store.data_mut().http().set_scheme(request, scheme)?,))
    };
    let set_authority = |mut store: Store<'_>, (request, authority): (Request, Option<String>)| -> Set {
        store.data_mut().hold(authority.as_ref().map_or(0, String::len))?;
        Ok((store.data_mut().http().set_authority(request, authority)?,))
    };
    let set_path = |mut store: Store<'_>, (request, path): (Request, Option<String>)| -> Set {
        store.data_mut().hold(path.as_ref().map_or(0, String::len))?;
        Ok((store.data_mut().http().set_path_with_query(request, path)?,))
    };
    types.func_wrap("[method]outgoing-request.set-method", set_method)?;
    types.func_wrap("[method]outgoing-request.set-scheme", set_scheme)?;
    types.func_wrap("[method]outgoing-request.set-authority", set_authority)?;
    types.func_wrap("[method]outgoing-request.set-path-with-query", set_path)
}

fn finish_body(
    mut store: Store<'_>,
    (body, trailers): (Resource<HostOutgoingBody>, Option<Fields>),
) -> wasmtime::Result<(Result<(), ErrorCode>,)> {
    let table = store.data_mut().table();
    let bytes = match &trailers {
        Some(trailers) => host_memory::headers(table.get(trailers)?),
        None => 0,
    };
    if bytes > TRAILER_BYTES_MAX {
        // As WASI defines it: both are dropped, and the request comes to no regular end.
        trailers.map(|trailers| table.delete(trailers)).transpose()?;
        table.delete(body)?.abort();
        return Ok((Err(ErrorCode::HttpRequestTrailerSectionSize(u32::try_from(bytes).ok())),));
    }
    match store.data_mut().http().finish(body, trailers) {
        Ok(()) => Ok((Ok(()),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

fn get_response(
    mut store: Store<'_>,
    (future,): (Resource<HostFutureIncomingResponse>,),
) -> wasmtime::Result<(Response,)> {
    let response = Future::get(&mut store.data_mut().http(), future)?;
    if let Some(Ok(Ok(response))) = &response {
        let bytes = host_memory::headers(&store.data_mut().table().get(response)?.headers);
        store.data_mut().hold(bytes)?;
    }
    Ok((response,))
}
