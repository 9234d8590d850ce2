#!/usr/bin/env bash
# Finds, or makes, a Rust toolchain that builds components (target wasm32-wasip2), and prints the shell
# exports that select it. Standard output carries nothing else; progress goes to standard error.
#
#   exports=$(./toolchain.sh) && eval "$exports"
#   cargo build --release --target wasm32-wasip2
#
# Tried in this order:
#   1. the active toolchain, where it has the target already;
#   2. Debian's packages rustc-web, rust-web-llvm and lld, where they are installed;
#   3. `rustup target add wasm32-wasip2` (not with WASI_RUST_NO_RUSTUP=1);
#   4. on Debian, where rustup cannot fetch targets: these packages, which need.sh installs.
# With the packages, the target's standard library is compiled once (1 to 2 minutes) into $WASI_RUST_DIR
# (~/.cache/outbox-wasm unless set; 80 MB, safe to delete, worth keeping between CI jobs).
#
# `toolchain.sh --packages` is for need.sh: it prints those packages that 4 would install, and nothing where 1 to 3 do.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target=wasm32-wasip2
# The LLVM that rustc-web is built with, where apt-get's lists do not tell.
llvm_usual=22
cache=${WASI_RUST_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/outbox-wasm}
# Part of the cache's key: raise it when the recipe below changes.
recipe=1

say() { echo "toolchain: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  if [ "${1:-}" = --packages ]; then
    installed_target || debian_installed || rustup_target || debian_packages
    return
  fi
  command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
  serialise
  installed_target || { ! debian_installed && rustup_target; } || debian_toolchain
}

# Two builds at once must not install packages, or fill the cache, side by side.
serialise() {
  command -v flock >/dev/null || return 0 # not Linux: rustup has locks of its own
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock --nonblock 9 || { say "waiting for another run of this script"; flock 9; }
}

installed_target() {
  local libraries
  libraries=$("${RUSTC:-rustc}" --print target-libdir --target "$target" 2>/dev/null) || return 1
  compgen -G "$libraries/libstd-*.rlib" >/dev/null || return 1
  say "the active toolchain has $target"
}

rustup_target() {
  [ "${WASI_RUST_NO_RUSTUP:-}" != 1 ] && command -v rustup >/dev/null || return 1
  say "running: rustup target add $target"
  RUSTUP_MAX_RETRIES=1 timeout 120 rustup target add "$target" 1>&2 9>&- && installed_target && return
  say "rustup could not add $target"
  return 1
}

debian_toolchain() {
  debian_installed || "$here/need.sh" wasm 1>&2 9>&- || exit 1
  local version sysroot
  version=$(dpkg-query --show --showformat='${Version}' rustc-web)
  sysroot=$cache/$version-recipe$recipe
  [ -d "$sysroot" ] || build_sysroot "$version" "$sysroot"
  say "using $("$sysroot/bin/rustc" --version) of Debian's rustc-web, with $sysroot"
  printf 'export RUSTC=%q\n' "$sysroot/bin/rustc"
}

debian_installed() {
  installed rustc-web && installed rust-web-llvm && installed "lld-$(llvm_version)"
}

debian_packages() {
  have apt-get || die "no toolchain for $target: run 'rustup target add $target'"
  echo "rustc-web rust-web-llvm lld-$(llvm_version)"
}

have() { command -v "$1" >/dev/null; }

installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# The LLVM that Debian's rustc-web was built with: only a wasm-ld of that age links what it compiles.
llvm_version() {
  local version
  version=$({ apt-cache show --no-all-versions rust-web-llvm 2>/dev/null || true; } |
    sed -n 's/^Depends:.*\bllvm-\([0-9]*\).*/\1/p')
  echo "${version:-$llvm_usual}"
}

# A sysroot is Debian's compiler and linker by link, and the target's standard library beside them. It is
# made in a folder of its own and moved into place when it is whole, so that no half of one is ever used.
build_sysroot() { # VERSION SYSROOT
  local version=$1 sysroot=$2 llvm work
  llvm=$(llvm_version)
  work=$cache/unfinished
  say "compiling the standard library for $target into $sysroot (once, 1 to 2 minutes)"
  rm -rf "$work"
  mkdir -p "$work/sources"
  unpack_sources "$version" "$work/sources"
  link_compiler "$work" "$llvm"
  compile_std "$work"
  add_libc "$work" "$llvm"
  rm -rf "$work/sources" "$work/lib/rustlib/src"
  mv "$work" "$sysroot"
}

# The two packages are only unpacked: installed, they would bring hundreds of MB along.
unpack_sources() { # VERSION FOLDER
  local packages=("rust-web-src=$1" wasi-libc)
  (
    cd "$2"
    apt-get download -q -o APT::Sandbox::User=root "${packages[@]}" 1>&2 ||
      die "apt-get could not download ${packages[*]}. As root, run: apt-get update && apt-get install rustc-web"
    dpkg-deb --fsys-tarfile rust-web-src_*.deb | tar -x --wildcards './usr/src/rustc-*/library'
    dpkg-deb -x wasi-libc_*.deb .
    rm ./*.deb
  )
}

link_compiler() { # SYSROOT LLVM
  local sysroot=$1 llvm=$2 host
  host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')
  mkdir -p "$sysroot/bin" "$sysroot/lib/rustlib/$host/bin" "$sysroot/lib/rustlib/src"
  ln -s "/usr/lib/rustlib/$host/lib" "$sysroot/lib/rustlib/$host/lib"
  ln -s "/usr/lib/rustlib/$host/bin/wasm-component-ld" "/usr/bin/wasm-ld-$llvm" "$sysroot/lib/rustlib/$host/bin/"
  ln -s "wasm-ld-$llvm" "$sysroot/lib/rustlib/$host/bin/wasm-ld"
  ln -s "/usr/bin/lld-$llvm" "$sysroot/lib/rustlib/$host/bin/rust-lld"
  ln -s "$sysroot"/sources/usr/src/rustc-* "$sysroot/lib/rustlib/src/rust"
  cat > "$sysroot/bin/rustc" <<'RUSTC'
#!/bin/sh
exec /usr/bin/rustc --sysroot "${0%/bin/rustc}" "$@"
RUSTC
  chmod +x "$sysroot/bin/rustc"
}

# Cargo compiles a standard library only along with a crate, so it gets an empty one.
compile_std() { # SYSROOT
  local sysroot=$1 crate=$1/sources/empty libraries=$1/lib/rustlib/$target/lib
  mkdir -p "$crate/src" "$libraries"
  echo '#![no_std]' > "$crate/src/lib.rs"
  cat > "$crate/Cargo.toml" <<'CARGO'
[package]
name = "empty"
version = "0.0.0"
edition = "2024"

[profile.release]
codegen-units = 1

[workspace]
CARGO
  # RUSTC_BOOTSTRAP admits -Zbuild-std on a stable compiler. Variables that would reach the build are left out.
  (
    cd "$crate"
    env -u CARGO_BUILD_TARGET -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER \
      RUSTC="$sysroot/bin/rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
      cargo build --release --target "$target" --target-dir target -Zbuild-std=std,panic_abort 1>&2 9>&-
  ) || die "the standard library did not compile (cargo needs its registry for it)"
  cp "$crate/target/$target/release/deps"/lib*.rlib "$libraries/"
  rm "$libraries"/libempty-*.rlib
}

# wasi-libc of Debian 12 is older than the target: what the standard library expects of it and does not find
# is defined here. Threads and sockets answer "not supported"; the symbols are weak, a better libc wins.
add_libc() { # SYSROOT LLVM
  local sysroot=$1 llvm=$2 parts=$1/lib/rustlib/$target/lib/self-contained
  mkdir -p "$parts"
  cp "$sysroot"/sources/usr/lib/wasm32-wasi/{crt1-command.o,crt1-reactor.o,libc.a} "$parts/"
  cat > "$sysroot/sources/gaps.rs" <<'GAPS'
#![no_std]
#![feature(linkage)]
#![allow(unused_variables)]
use core::ffi::{c_char, c_int, c_uint, c_void};

type Pointer = *const c_void;

const ENOTSUP: c_int = 58;
const EAI_FAIL: c_int = -4;

unsafe extern "C" {
    static mut errno: c_int;
}

fn unsupported() -> c_int {
    unsafe { errno = ENOTSUP };
    -1
}

macro_rules! gaps {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty { $body:expr })*) => { $(
        #[unsafe(no_mangle)]
        #[linkage = "weak"]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result { $body }
    )* };
}

gaps! {
    __errno_location() -> *mut c_int { &raw mut errno }
    pthread_create(thread: Pointer, attributes: Pointer, start: Pointer, argument: Pointer) -> c_int { ENOTSUP }
    pthread_join(thread: Pointer, result: Pointer) -> c_int { ENOTSUP }
    pthread_detach(thread: Pointer) -> c_int { ENOTSUP }
    pthread_attr_init(attributes: Pointer) -> c_int { 0 }
    pthread_attr_setstacksize(attributes: Pointer, bytes: usize) -> c_int { 0 }
    pthread_attr_destroy(attributes: Pointer) -> c_int { 0 }
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int { unsupported() }
    bind(socket: c_int, address: Pointer, length: c_uint) -> c_int { unsupported() }
    connect(socket: c_int, address: Pointer, length: c_uint) -> c_int { unsupported() }
    listen(socket: c_int, backlog: c_int) -> c_int { unsupported() }
    getsockname(socket: c_int, address: Pointer, length: Pointer) -> c_int { unsupported() }
    getpeername(socket: c_int, address: Pointer, length: Pointer) -> c_int { unsupported() }
    setsockopt(socket: c_int, level: c_int, name: c_int, value: Pointer, length: c_uint) -> c_int { unsupported() }
    sendto(socket: c_int, data: Pointer, size: usize, flags: c_int, to: Pointer, length: c_uint) -> isize { unsupported() as isize }
    recvfrom(socket: c_int, data: Pointer, size: usize, flags: c_int, from: Pointer, length: Pointer) -> isize { unsupported() as isize }
    getaddrinfo(node: Pointer, service: Pointer, hints: Pointer, found: Pointer) -> c_int { EAI_FAIL }
    freeaddrinfo(found: Pointer) -> () { () }
    gai_strerror(code: c_int) -> *const c_char { c"names are not looked up on this target".as_ptr() }
}
GAPS
  RUSTC_BOOTSTRAP=1 "$sysroot/bin/rustc" --edition 2024 --crate-type lib --emit obj --target "$target" \
    -Copt-level=s -Cpanic=abort -o "$sysroot/sources/gaps.o" "$sysroot/sources/gaps.rs" 1>&2
  "/usr/lib/llvm-$llvm/bin/llvm-ar" rs "$parts/libc.a" "$sysroot/sources/gaps.o" 1>&2
}

main "$@"
