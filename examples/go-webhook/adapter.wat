;; What Go's runtime asks of wasi 0.1. Two things about the usual adapter do not suit Go:
;;
;; - It keeps its state in memory that it adds to the program's, which Go takes for its own heap. This one has none there.
;; - It asks the host for the time. Go does so when it collects garbage, and that may be while the host hands it an event
;;   (cabi_realloc), when nothing may be called: a trap. Here time is a count of how often Go asked. The program asks
;;   wasi:clocks when it needs to know what time it is.
;;
;; A file, an argument or an environment variable is never there.
(module
  (import "wasi:random/random@0.2.12" "get-random-u64" (func $random (result i64)))
  (import "env" "memory" (memory 0))
  (global $now (mut i64) (i64.const 1))

  (func $pass (param $nanoseconds i64)
    (global.set $now (i64.add (global.get $now) (local.get $nanoseconds))))

  (func (export "clock_time_get") (param i32 i64 i32) (result i32)
    (call $pass (i64.const 1000))
    (i64.store (local.get 2) (global.get $now))
    (i32.const 0))

  ;; Called when the program starts.
  (func (export "random_get") (param $to i32) (param $length i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $to) (local.get $length)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $to) (local.get $end)))
        (i64.store8 (local.get $to) (call $random))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; None of them, in no bytes.
  (func $nothing (param i32 i32) (result i32)
    (i32.store (local.get 0) (i32.const 0))
    (i32.store (local.get 1) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $nothing))
  (export "environ_sizes_get" (func $nothing))
  (func $fine (param i32 i32) (result i32) (i32.const 0))
  (export "args_get" (func $fine))
  (export "environ_get" (func $fine))
  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; The runtime sleeps by it: that time is over at once. One event comes about, without an error.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param i32) (param $events i32) (result i32)
    (call $pass (i64.load offset=24 (local.get $in)))
    (i64.store (local.get $out) (i64.load (local.get $in)))
    (i64.store offset=8 (local.get $out) (i64.const 0))
    (i32.store (local.get $events) (i32.const 1))
    (i32.const 0))

  ;; 8 is badf: there is no such file.
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_write") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "proc_exit") (param i32) unreachable))
