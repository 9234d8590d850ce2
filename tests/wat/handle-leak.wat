;; Asks for timer after timer and lets go of none.
(core module $core
  (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
  (memory (export "memory") 1)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (loop (drop (call $subscribe (i64.const 3600000000000))) (br 0))
    unreachable)
  (func (export "post-return") (param i32)))
