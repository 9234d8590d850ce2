//! What the host keeps for each instance: its capabilities and its accounts.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::host_memory::{HostMemory, TooMuchHeld};
use super::http::Gate;
use super::limits::Limiter;
use super::output::{Capture, GuestStream};
use super::secrets::Redactor;
use super::settings::Settings;
use super::sockets::SocketGate;

/// The most random bytes of one host call.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// The data of one store.
pub(super) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    config: WasiConfigVariables,
    host_memory: HostMemory,
    pub(super) gate: Gate,
    pub(super) sockets: Arc<SocketGate>,
    pub(super) limiter: Limiter,
    pub(super) capture: Capture,
    pub(super) redactor: Redactor,
    /// The deadline of the current call.
    pub(super) deadline: Instant,
}

impl State {
    pub(super) fn new(settings: &Settings, gate: Gate, capture: Capture, redactor: Redactor) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(settings.limits.resources);
        let sockets = gate.sockets();
        Self {
            wasi: wasi(settings, &capture, &sockets),
            http: WasiHttpCtx::new(),
            table,
            config: settings.grants.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            host_memory: HostMemory::new(gate.on_the_way()),
            gate,
            sockets,
            limiter: Limiter::new(&settings.limits),
            capture,
            redactor,
            deadline: Instant::now(),
        }
    }

    pub(super) fn config(&mut self) -> WasiConfig<'_> {
        WasiConfig::from(&self.config)
    }
}

/// Clocks, randomness, captured output, the granted variables and the granted connections; no folder, no UDP, no input.
fn wasi(settings: &Settings, capture: &Capture, sockets: &Arc<SocketGate>) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(capture.stream(GuestStream::Stdout));
    wasi.stderr(capture.stream(GuestStream::Stderr));
    for (name, value) in &settings.grants.env {
        wasi.env(name, value);
    }
    // A socket may be made without a grant: only its destination decides whether to deny it, and which line would allow
    // it. `sockets.rs` looks names up, and never WASI's own function.
    wasi.allow_tcp(true).allow_udp(false).allow_ip_name_lookup(false);
    let sockets = sockets.clone();
    wasi.socket_addr_check(move |address, usage| Box::pin(ready(sockets.admits(address, usage))));
    wasi.max_random_size(RANDOM_BYTES_MAX);
    wasi.build()
}

impl State {
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Gives back the file descriptors of the sockets that the guest has closed.
    pub(super) fn give_back_sockets(&self) {
        self.sockets.forget_closed(&self.table);
    }

    /// Counts what the guest hands over, before it is put into the table.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), TooMuchHeld> {
        self.host_memory.grow(bytes, &mut self.table)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.gate, table: &mut self.table, ctx: &mut self.http }
    }
}
